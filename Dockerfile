# syntax=docker/dockerfile:1
# Three stages: the first builds the programs that Kustomizations need, at the versions that the tests use; the second resolves
# nothing, it installs what requirements.lock names by hash and the wheel of this tree; the third has no compiler, no pip and no
# shell scripts of ours. Runs as a number, with a read-only root: state belongs on a volume at /data,
# short-lived files (keys while they sign, TLS pairs while they load) go to /tmp, for which a tmpfs or emptyDir in memory is right.
ARG PYTHON=3.11.11-slim-bookworm
ARG GO=1.26-bookworm

FROM golang:${GO} AS programs
# Static, so that they run confined: without a loader and libraries to read. The Go module proxy's checksums are checked.
ENV CGO_ENABLED=0 \
    GOBIN=/programs
RUN go install -trimpath -ldflags "-s -w" sigs.k8s.io/kustomize/kustomize/v5@v5.8.1 \
    && go install -trimpath -ldflags "-s -w" github.com/getsops/sops/v3/cmd/sops@v3.13.3

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Dependencies first: this layer is built again only when the lock changes.
COPY requirements.lock requirements-dev.lock ./
RUN python -m venv --without-pip /opt/imagebot \
    && pip --python /opt/imagebot/bin/python install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY reconcile reconcile
COPY imagebot imagebot
COPY canary canary
COPY examples examples
# The build backend comes from the lock, too: uv, itself from there, checks what it installs into the isolated build by hash.
RUN awk '/^[a-z]/ { keep = /^uv==/ } keep' requirements-dev.lock > uv.lock \
    && pip install --require-hashes -r uv.lock \
    && uv build --wheel --build-constraints requirements-dev.lock --require-hashes --python "$(command -v python)" --out-dir /wheels . \
    && pip --python /opt/imagebot/bin/python install --no-deps --no-index /wheels/*.whl \
    && /opt/imagebot/bin/python -m compileall -q /opt/imagebot/lib

FROM python:${PYTHON}
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="imagebot" \
      org.opencontainers.image.description="From a pushed image to a signed commit, a deployed workload and shifted traffic, as Flux and Flagger do it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/imagebot/imagebot" \
      org.opencontainers.image.documentation="https://github.com/imagebot/imagebot/tree/main/docs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Versions are those of the Debian release that the base image's tag names; security fixes of that release are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git gnupg openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    # ssh refuses to run for a user without an entry in /etc/passwd.
    && groupadd --gid 65532 imagebot \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /data --shell /usr/sbin/nologin imagebot \
    && install --directory --owner=65532 --group=65532 --mode=0700 /data \
    && install --directory --owner=65532 --group=65532 --mode=0755 /manifests
COPY --from=programs /programs/kustomize /programs/sops /usr/local/bin/
COPY --from=build /opt/imagebot /opt/imagebot
ENV PATH=/opt/imagebot/bin:$PATH \
    HOME=/data \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    IMAGEBOT_RUN_STATE=/data \
    IMAGEBOT_RUN_HEALTH_ADDR=:9440 \
    IMAGEBOT_ONCE_STATE=/data \
    IMAGEBOT_GET_STATE=/data \
    IMAGEBOT_GET_DIR=/manifests
USER 65532:65532
WORKDIR /manifests
VOLUME /data
EXPOSE 9440 9090
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9440/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["imagebot"]
CMD ["run", "/manifests"]
