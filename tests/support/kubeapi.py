"""A small client of the Kubernetes API for tests: synchronous, plain dictionaries in and out.

It shares no code with the program under test, so that a mistake there cannot hide here.
"""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

Object = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class ApiError(Exception):
    """The server refused.

    Attributes:
        code: The HTTP status, such as 404.
        reason: The Status object's reason, such as `NotFound`; empty when the answer was no Status.
        status: The Status object, or what was there instead.
    """

    def __init__(self, method: str, path: str, response: httpx.Response) -> None:
        try:
            self.status: Object = response.json()
        except ValueError:
            self.status = {"message": response.text[:2000]}
        self.code = response.status_code
        self.reason = str(self.status.get("reason", ""))
        self.message = str(self.status.get("message", ""))
        super().__init__(f"{method} {path}: {self.code} {self.reason}: {self.message}")


class KubeApi:
    """One user's connection to one API server.

    Args:
        server: `https://host:port`.
        token: Bearer token, if that is how this user is known.
        verify: How to check the server; `False` only for clusters whose kubeconfig says so.
        user_agent: Under this name requests appear in the audit log.
        timeout: Seconds that one request may take; a watch has its own.
    """

    def __init__(self, server: str, *, token: str | None = None, verify: ssl.SSLContext | bool = True,
                 user_agent: str = "imagebot-tests", timeout: float = 30.0) -> None:  # fmt: skip
        self.server = server
        headers = {"User-Agent": user_agent, "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self.http = httpx.Client(base_url=server, headers=headers, verify=verify, timeout=timeout, trust_env=False)
        self._resources: dict[str, dict[str, Object]] = {}

    @classmethod
    def from_kubeconfig(cls, path: Path, *, context: str | None = None, **more: Any) -> Self:
        """The user and cluster of a kubeconfig's context; knows tokens, token files and client certificates."""
        config = yaml.safe_load(path.read_text())
        wanted = _named(config, "contexts", context or config["current-context"])["context"]
        cluster = _named(config, "clusters", wanted["cluster"])["cluster"]
        user = _named(config, "users", wanted["user"]).get("user") or {}
        if "exec" in user or "auth-provider" in user:
            raise ValueError(
                f"{path}: users that need a login program are not supported here; use a token or a client certificate"
            )
        token = user.get("token") or (Path(user["tokenFile"]).read_text().strip() if "tokenFile" in user else None)
        return cls(cluster["server"], token=token, verify=_verification(cluster, user), **more)

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", **params: Any) -> Any:
        """One request; the decoded answer, or its text when it is no JSON. Parameters that are None are left out.

        Raises:
            ApiError: The server answered 400 or more.
        """
        content = None if body is None else json.dumps(body).encode()
        query = {key: value for key, value in params.items() if value is not None}
        headers = {"Content-Type": content_type} if content else {}
        # An empty dictionary would strip the query that the path may have.
        response = self.http.request(method, path, content=content, params=query or None, headers=headers)
        if response.status_code >= 400:
            raise ApiError(method, path, response)
        return response.json() if response.headers.get("content-type", "").startswith("application/json") else response.text

    def path(
        self, api_version: str, kind: str, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """Where objects of a kind are; the kind's resource name is asked for once.

        Raises:
            LookupError: The server does not serve this kind.
        """
        resource = self._resource(api_version, kind)
        parts = [_group_path(api_version)]
        if namespace and resource["namespaced"]:
            parts += ["namespaces", namespace]
        return "/".join([*parts, resource["name"], *([name] if name else []), *([subresource] if subresource else [])])

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object:
        """One object."""
        return dict(self.request("GET", self.path(api_version, kind, namespace, name)))

    def find(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """One object, or None when there is none."""
        try:
            return self.get(api_version, kind, name, namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            return None

    def list(self, api_version: str, kind: str, namespace: str | None = None, *, labels: str | None = None,
             fields: str | None = None) -> list[Object]:  # fmt: skip
        """All objects of a kind, everywhere or in one namespace, by label and field selector."""
        answer = self.request("GET", self.path(api_version, kind, namespace), labelSelector=labels, fieldSelector=fields)
        return list(answer["items"])

    def create(self, manifest: Object, *, subresource: str | None = None, dry_run: bool = False) -> Object:
        """Create an object, or post to a subresource of one."""
        path = self._path_of(manifest, subresource, named=subresource is not None)
        return dict(self.request("POST", path, manifest, dryRun="All" if dry_run else None))

    def apply(self, manifest: Object, *, manager: str = "tests", force: bool = True, subresource: str | None = None,
              dry_run: bool = False) -> Object:  # fmt: skip
        """Server-side apply under a field manager's name."""
        params = {"fieldManager": manager, "force": str(force).lower(), "dryRun": "All" if dry_run else None}
        return dict(self.request("PATCH", self._path_of(manifest, subresource), manifest, content_type=APPLY_PATCH, **params))

    def merge_patch(self, api_version: str, kind: str, name: str, patch: Object, namespace: str | None = None, *,
                    subresource: str | None = None) -> Object:  # fmt: skip
        """Merge patch of an object or of its `status`."""
        path = self.path(api_version, kind, namespace, name, subresource)
        return dict(self.request("PATCH", path, patch, content_type=MERGE_PATCH))

    def replace(self, manifest: Object, *, subresource: str | None = None) -> Object:
        """Update an object; its resourceVersion, if given, must still be right."""
        return dict(self.request("PUT", self._path_of(manifest, subresource), manifest))

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None, *, propagation: str = "Background",
               missing_ok: bool = False) -> None:  # fmt: skip
        """Ask for an object's end; finalizers may delay it."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        try:
            self.request("DELETE", self.path(api_version, kind, namespace, name), body)
        except ApiError as error:
            if not (missing_ok and error.code == 404):
                raise

    def watch(self, api_version: str, kind: str, namespace: str | None = None, *, seconds: int = 30, since: str | None = None,
              labels: str | None = None) -> Generator[tuple[str, Object], None, None]:  # fmt: skip
        """Events as (type, object), from a resource version or from the present state, for so many seconds."""
        params = {"watch": "true", "timeoutSeconds": str(seconds), "resourceVersion": since, "labelSelector": labels}
        query = {key: value for key, value in params.items() if value is not None}
        path = self.path(api_version, kind, namespace)
        with self.http.stream("GET", path, params=query, timeout=seconds + 10.0) as response:
            if response.status_code >= 400:
                response.read()
                raise ApiError("WATCH", path, response)
            for line in response.iter_lines():
                event = json.loads(line)
                yield event["type"], event["object"]

    def wait(self, api_version: str, kind: str, name: str, until: Callable[[Object | None], Any], namespace: str | None = None, *,
             seconds: float = 30.0) -> Object | None:  # fmt: skip
        """Look at an object until a condition holds; it is given None while there is no such object.

        Raises:
            TimeoutError: It did not come to hold; the text has the object's last state.
        """
        end = time.monotonic() + seconds
        while True:
            found = self.find(api_version, kind, name, namespace)
            if until(found):
                return found
            if time.monotonic() > end:
                state = json.dumps(found and found.get("status"), indent=1)
                raise TimeoutError(f"{kind} {namespace or ''}/{name}: not as hoped for after {seconds:g}s; its status:\n{state}")
            time.sleep(0.1)

    def install_crd(self, manifest: Object, *, seconds: float = 30.0) -> None:
        """Apply a CustomResourceDefinition and wait until its objects can be made and listed in every served version."""
        self.apply(manifest)
        spec = manifest["spec"]
        for version in spec["versions"]:
            if version["served"]:
                self._until_served(f"{spec['group']}/{version['name']}", spec["names"]["kind"], seconds)

    def _until_served(self, api_version: str, kind: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                self.request("GET", self.path(api_version, kind), limit="1")
            except (ApiError, LookupError) as error:
                # Not yet established is 404, or missing from discovery; then its storage begins, which is 429.
                if (isinstance(error, ApiError) and error.code not in {404, 429}) or time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return

    def token(self, namespace: str, service_account: str, *, seconds: int = 3600) -> str:
        """A token of a ServiceAccount, from the TokenRequest API."""
        path = self.path("v1", "ServiceAccount", namespace, service_account, "token")
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": seconds}}
        return str(self.request("POST", path, body)["status"]["token"])

    def _path_of(self, manifest: Object, subresource: str | None = None, *, named: bool | None = None) -> str:
        metadata = manifest["metadata"]
        # POST goes to the collection, everything else to the object.
        name = None if named is False else metadata["name"]
        return self.path(manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), name, subresource)

    def _resource(self, api_version: str, kind: str) -> Object:
        if kind not in self._resources.get(api_version, {}):
            try:
                found = self.request("GET", _group_path(api_version))["resources"]
            except ApiError as error:
                if error.code != 404:
                    raise
                found = []
            self._resources[api_version] = {entry["kind"]: entry for entry in found if "/" not in entry["name"]}
        try:
            return self._resources[api_version][kind]
        except KeyError:
            raise LookupError(f"the server has no {kind} in {api_version}") from None


def condition(found: Object | None, kind: str) -> str | None:
    """The status of a condition: `True`, `False`, `Unknown`, or None where there is no such condition (or object)."""
    conditions = ((found or {}).get("status") or {}).get("conditions") or []
    return next((str(entry["status"]) for entry in conditions if entry["type"] == kind), None)


def _group_path(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _named(config: Object, section: str, name: str) -> Object:
    for entry in config.get(section) or []:
        if entry["name"] == name:
            return dict(entry)
    raise ValueError(f"the kubeconfig has no {name!r} under {section}")


def _verification(cluster: Object, user: Object) -> ssl.SSLContext:
    authority = cluster.get("certificate-authority-data")
    context = ssl.create_default_context(
        cafile=cluster.get("certificate-authority"), cadata=base64.b64decode(authority).decode() if authority else None
    )
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if "client-certificate" in user:
        context.load_cert_chain(user["client-certificate"], user["client-key"])
    elif "client-certificate-data" in user:
        # The ssl module takes a client's key from a file only.
        with tempfile.NamedTemporaryFile() as file:
            file.write(base64.b64decode(user["client-certificate-data"]) + b"\n" + base64.b64decode(user["client-key-data"]))
            file.flush()
            context.load_cert_chain(file.name)
    return context
