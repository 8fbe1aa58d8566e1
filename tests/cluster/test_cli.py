"""Commands against a real API server; a thread of the test answers in the place of a controller."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
import structlog
import yaml

from reconcile.api.crd import definitions
from reconcile.app import load_packages
from reconcile.cli.main import EXIT_USAGE, main
from reconcile.cli.output import as_list
from reconcile.cli.place import Place
from reconcile.cli.place import UnknownKind as Unknown
from reconcile.cli.target import finish, open_cluster_of
from tests.support.controlplane import Cluster
from tests.support.kube import scheme_of, thing_kind
from tests.support.lab import automation, git_repository, image_policy, image_repository

V1 = "image.toolkit.fluxcd.io/v1"
NOW = "2030-01-01T00:00:00Z"

Object = dict[str, Any]


class Cli:
    """The program, with the kubeconfig of a cluster."""

    def __init__(self, cluster: Cluster, namespace: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.api, self.cluster, self.namespace, self._capsys = cluster.api, cluster, namespace, capsys

    def __call__(
        self, command: str, *arguments: str, kubeconfig: Path | None = None, everywhere: bool = False
    ) -> tuple[int, str, str]:
        place = ["--kubeconfig", str(kubeconfig or self.cluster.kubeconfig), *([] if everywhere else ["-n", self.namespace])]
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([command, *arguments, *place])
        structlog.reset_defaults()
        out, err = self._capsys.readouterr()
        assert "\x1b" not in out + err
        return int(ended.value.code or 0), out, err

    def create(self, body: Object, status: Object | None = None) -> Object:
        body["metadata"]["namespace"] = self.namespace
        made = self.api.create(body)
        return self.status(body["kind"], body["metadata"]["name"], status) if status else made

    def status(self, kind: str, name: str, status: Object) -> Object:
        return self.api.merge_patch(V1, kind, name, {"status": status}, self.namespace, subresource="status")

    def read(self, kind: str, name: str) -> Object:
        return self.api.get(V1, kind, name, self.namespace)

    @contextmanager
    def controller(self, kind: str, name: str, answer: Callable[[Object], Object]) -> Iterator[None]:
        """Answer once, with a status, when the annotation of a request or the generation has changed."""
        before = _seen(self.read(kind, name))
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.05):
                found = self.read(kind, name)
                if _seen(found) != before:
                    self.status(kind, name, answer(found))
                    return

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(20)


def _seen(found: Object) -> tuple[Any, ...]:
    meta = found["metadata"]
    return meta["generation"], (meta.get("annotations") or {}).get("reconcile.fluxcd.io/requestedAt")


def ready(status: str = "True", message: str = "fine", generation: int = 1, **more: Any) -> Object:
    reason = "Succeeded" if status == "True" else "Failure"
    entry = {"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW}
    entries = [{**entry, "observedGeneration": generation}]
    if status == "False":
        entries.insert(0, {**entry, "type": "Reconciling", "status": "True", "reason": "ProgressingWithRetry"})
    return {"conditions": entries, "observedGeneration": generation if status == "True" else -1, **more}


def handled(status: str = "True", message: str = "fine", **more: Any) -> Callable[[Object], Object]:
    """The answer of a controller to a request."""

    def answer(found: Object) -> Object:
        requested = (found["metadata"].get("annotations") or {}).get("reconcile.fluxcd.io/requestedAt")
        extra = {"lastHandledReconcileAt": requested} if requested else {}
        return {**ready(status, message, found["metadata"]["generation"], **more), **extra}

    return answer


@pytest.fixture
def cli(control_plane: Cluster, namespace: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    for manifest in definitions(load_packages().scheme).values():
        control_plane.api.install_crd(manifest)
    return Cli(control_plane, namespace, capsys)


CHOSEN: dict[str, Any] = {"latestRef": {"name": "registry.example/web", "tag": "1.2.0"}}


# --- get


def test_get_one_kind_has_its_printer_columns(cli: Cli) -> None:
    cli.create(image_policy("web"), ready(message="Latest image tag resolved", **CHOSEN))
    code, out, err = cli("get", "imgpol")
    head, row = out.splitlines()
    assert (code, err) == (0, "")
    assert head.split() == ["NAME", "IMAGE", "TAG", "READY", "STATUS", "AGE"]
    assert row.split()[:4] == ["web", "registry.example/web", "1.2.0", "True"]
    assert "Latest image tag resolved" in row
    shown = cli.cluster.kubectl("-n", cli.namespace, "get", "imgpol").stdout.splitlines()
    assert [line.split() for line in shown[:1]] == [head.split()]
    assert shown[1].split()[:-1] == row.split()[:-1]


def test_wide_adds_the_columns_of_lower_priority(cli: Cli) -> None:
    scan: dict[str, Any] = {"lastScanResult": {"tagCount": 3, "scanTime": NOW}}
    cli.create(image_repository("web", "registry.example/web"), ready(**scan))
    assert "LAST SCAN" not in cli("get", "imagerepositories")[1]
    _, out, _ = cli("get", "imagerepositories", "-o", "wide")
    assert "LAST SCAN" in out.splitlines()[0]
    assert NOW in out.splitlines()[1]


def test_get_all_kinds_and_all_namespaces(cli: Cli) -> None:
    cli.create(image_policy("web"), ready())
    cli.create(git_repository("fleet", "https://git.example/fleet.git"))
    code, out, _ = cli("get")
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        [cli.namespace, "GitRepository/fleet", "-"],
        [cli.namespace, "ImagePolicy/web", "True"],
    ]
    _, out, _ = cli("get", "imgpol", "-A", everywhere=True)
    assert [cli.namespace, "web"] in [line.split()[:2] for line in out.splitlines()]


def test_get_prints_a_list_without_bookkeeping_of_managers(cli: Cli) -> None:
    cli.create(image_policy("web"), ready(**CHOSEN))
    code, out, _ = cli("get", "imagepolicy/web", "-o", "json")
    found = json.loads(out)
    assert (code, found["kind"], len(found["items"])) == (0, "List", 1)
    assert (found["items"][0]["apiVersion"], found["items"][0]["status"]["latestRef"]) == (V1, CHOSEN["latestRef"])
    assert "managedFields" not in found["items"][0]["metadata"]
    assert yaml.safe_load(cli("get", "image", "policy", "web", "-o", "yaml")[1]) == found
    assert cli("get", "imgpol", "-o", "name")[1] == "imagepolicy/web\n"


def test_labels_select(cli: Cli) -> None:
    for name, tier in (("a", "front"), ("b", "back")):
        cli.create(image_policy(name, labels={"tier": tier}))
    assert cli("get", "imgpol", "-l", "tier in (front,middle)", "-o", "name")[1] == "imagepolicy/a\n"
    assert cli("get", "imgpol", "-l", "tier!=front", "-o", "name")[1] == "imagepolicy/b\n"


def test_what_is_not_there_is_said_in_the_words_of_kubernetes(cli: Cli) -> None:
    code, out, err = cli("get", "imgpol/none")
    assert (code, out, err) == (1, "", 'imagebot: imagepolicies.image.toolkit.fluxcd.io "none" not found\n')
    code, out, err = cli("get", "imgpol")
    assert (code, out, err) == (0, "", f'no objects in namespace "{cli.namespace}"\n')


def test_a_missing_definition_says_how_to_install_it(cli: Cli) -> None:
    info = thing_kind("Ghost")
    place = Place(None, None, str(cli.cluster.kubeconfig), "", cli.namespace, everywhere=False)

    async def ask() -> None:
        async with open_cluster_of(place, scheme_of(info)) as cluster:
            await cluster.all_of(info)

    with pytest.raises(Unknown, match=re.escape("imagebot crds | kubectl apply --server-side -f -")):
        finish(ask())


def test_a_missing_right_says_which(cli: Cli, tmp_path: Path) -> None:
    cli.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": cli.namespace}})
    config = cli.cluster.service_account_kubeconfig(cli.namespace, "nobody", tmp_path / "kubeconfig")
    code, out, err = cli("get", "imgpol", kubeconfig=config)
    assert (code, out) == (1, "")
    assert 'missing RBAC rule {apiGroups: ["image.toolkit.fluxcd.io"], resources: ["imagepolicies"], verbs: ["list"]}' in err
    assert err.count("\n") == 1


def test_the_namespace_is_that_of_the_context(cli: Cli, tmp_path: Path) -> None:
    config = yaml.safe_load(cli.cluster.kubeconfig.read_text())
    for entry in config["contexts"]:
        entry["context"]["namespace"] = cli.namespace
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    cli.create(image_policy("web"))
    assert cli("get", "imgpol", "-o", "name", kubeconfig=path, everywhere=True)[1] == "imagepolicy/web\n"
    code, _, err = cli("get", "imgpol", "--context", "elsewhere")
    assert code == 1
    assert "elsewhere" in err


# --- reconcile


@pytest.mark.parametrize("words", [("imagerepository", "web"), ("imgrepo/web",), ("image", "repository", "web")])
def test_reconcile_asks_and_waits(cli: Cli, words: tuple[str, ...]) -> None:
    cli.create(image_repository("web", "registry.example/web"), ready())
    with cli.controller("ImageRepository", "web", handled(lastScanResult={"tagCount": 3})):
        code, out, err = cli("reconcile", *words)
    assert (code, out) == (0, "")
    assert err.splitlines() == [
        f"► annotating ImageRepository web in {cli.namespace} namespace",
        "✔ ImageRepository annotated",
        "◎ waiting for ImageRepository reconciliation",
        "✔ scan fetched 3 tags",
    ]


def test_reconcile_says_what_a_policy_selected(cli: Cli) -> None:
    cli.create(image_policy("web"), ready())
    ref = {"name": "registry.example/web", "tag": "1.2.0", "digest": "sha256:" + "0" * 64}
    with cli.controller("ImagePolicy", "web", handled(latestRef=ref)):
        code, _, err = cli("reconcile", "imgpol", "web")
    assert (code, err.splitlines()[-1]) == (0, f"✔ selected ref registry.example/web:1.2.0@sha256:{'0' * 64}")


def test_reconcile_reports_a_failed_pass_at_once(cli: Cli) -> None:
    cli.create(image_policy("web"), ready())
    with cli.controller("ImagePolicy", "web", handled("False", "no tags in database")):
        code, _, err = cli("reconcile", "imgpol", "web")
    assert (code, err.splitlines()[-1]) == (1, f"✗ ImagePolicy {cli.namespace}/web: no tags in database")


def test_reconcile_of_what_nobody_looks_at_ends_at_the_deadline(cli: Cli) -> None:
    cli.create(image_policy("web"), ready())
    code, _, err = cli("reconcile", "imgpol", "web", "--timeout", "500ms")
    assert code == 1
    assert err.splitlines()[-1] == (
        f"imagebot: ImagePolicy {cli.namespace}/web was not done after 500ms: "
        "no controller has taken it up: does one run for this namespace?"
    )


def test_reconcile_refuses_what_is_suspended_or_missing(cli: Cli) -> None:
    cli.create(image_policy("web", suspend=True))
    before = cli.read("ImagePolicy", "web")["metadata"]["resourceVersion"]
    code, _, err = cli("reconcile", "imgpol", "web")
    assert (code, err.count("\n")) == (1, 1)
    assert f"resource is suspended; end that with: imagebot resume imagepolicy web -n {cli.namespace}" in err
    assert cli.read("ImagePolicy", "web")["metadata"]["resourceVersion"] == before
    code, _, err = cli("reconcile", "imgpol", "none")
    assert (code, err) == (1, 'imagebot: imagepolicies.image.toolkit.fluxcd.io "none" not found\n')


# --- suspend, resume


def test_suspend_and_resume(cli: Cli) -> None:
    cli.create(image_policy("web"), ready())
    code, out, err = cli("suspend", "image", "policy", "web")
    assert (code, out) == (0, "")
    assert err.splitlines() == [f"► suspending ImagePolicy web in {cli.namespace} namespace", "✔ ImagePolicy suspended"]
    assert cli.read("ImagePolicy", "web")["spec"]["suspend"] is True
    with cli.controller("ImagePolicy", "web", handled(**CHOSEN)):
        code, _, err = cli("resume", "imgpol/web")
    assert code == 0
    assert err.splitlines()[1:] == [
        "✔ ImagePolicy resumed",
        "◎ waiting for ImagePolicy reconciliation",
        f"✔ ImagePolicy {cli.namespace}/web reconciliation completed",
        "✔ selected ref registry.example/web:1.2.0",
    ]
    assert "suspend" not in cli.read("ImagePolicy", "web")["spec"]


def test_resume_reports_what_fails(cli: Cli) -> None:
    cli.create(image_policy("web", suspend=True), ready())
    with cli.controller("ImagePolicy", "web", handled("False", "invalid policy")):
        code, _, err = cli("resume", "imgpol", "web")
    assert code == 1
    assert err.splitlines()[-1] == f"✗ ImagePolicy {cli.namespace}/web reconciliation failed: invalid policy"


def test_all_of_a_kind_at_once(cli: Cli) -> None:
    for name in ("a", "b", "c"):
        cli.create(image_policy(name))
    code, _, err = cli("suspend", "imgpol", "--all")
    assert (code, err.count("✔ ImagePolicy suspended")) == (0, 3)
    found = as_list(cli.api.list(V1, "ImagePolicy", cli.namespace))["items"]
    assert [item["spec"].get("suspend") for item in found] == [True, True, True]
    code, _, err = cli("resume", "imgpol", "--all", "--no-wait")
    assert (code, err.count("✔ ImagePolicy resumed")) == (0, 3)


def test_one_missing_name_does_not_keep_the_others(cli: Cli) -> None:
    cli.create(image_policy("web"))
    code, _, err = cli("suspend", "imgpol", "none", "web")
    assert code == 1
    assert '✗ imagepolicies.image.toolkit.fluxcd.io "none" not found' in err
    assert cli.read("ImagePolicy", "web")["spec"]["suspend"] is True
    assert cli("suspend", "imgpol")[0] == EXIT_USAGE


# --- events, explain


def said(cli: Cli, kind: str, name: str, type_: str, message: str, second: int, count: int = 1) -> None:
    meta = {"name": f"{name}.{second}", "namespace": cli.namespace}
    last = f"2030-01-01T00:00:{second:02}Z"
    cli.api.create({
        "apiVersion": "v1", "kind": "Event", "metadata": meta, "type": type_, "reason": "Said", "message": message,
        "involvedObject": {"apiVersion": V1 if kind.startswith("Image") else "v1", "kind": kind, "name": name,
                           "namespace": cli.namespace},
        "firstTimestamp": NOW, "lastTimestamp": last, "count": count,
    })  # fmt: skip


def test_events_are_ours_and_in_order(cli: Cli) -> None:
    said(cli, "ImagePolicy", "web", "Warning", "second", 2, count=4)
    said(cli, "ImageRepository", "web", "Normal", "first", 1)
    said(cli, "Pod", "web", "Normal", "of somebody else", 3)
    code, out, err = cli("events")
    head, *rows = out.splitlines()
    assert (code, err, head.split()) == (0, "", ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"])
    assert [row.split()[-2:] for row in rows] == [["ImageRepository/web", "first"], ["ImagePolicy/web", "second"]]
    assert "(x4 over 0s)" in rows[1]
    found = json.loads(cli("events", "--types", "Warning", "-o", "json")[1])["items"]
    assert [event["message"] for event in found] == ["second"]


def test_events_for_an_object_and_what_it_refers_to(cli: Cli) -> None:
    cli.create(image_policy("web", repository="base"))
    for number, (kind, name) in enumerate(
        [("ImagePolicy", "web"), ("ImageRepository", "base"), ("ImagePolicy", "other"), ("ImagePolicy", "gone")]
    ):
        said(cli, kind, name, "Normal", f"of {name}", number)
    assert [line.split()[-1] for line in cli("events", "--for", "imgpol/web")[1].splitlines()[1:]] == ["web", "base"]
    assert [line.split()[-1] for line in cli("events", "--for", "imgpol/gone")[1].splitlines()[1:]] == ["gone"]
    code, _, err = cli("events", "--for", "imgpol/none")
    assert (code, err) == (1, 'imagebot: imagepolicies.image.toolkit.fluxcd.io "none" not found\n')


class Registry:
    """Tags of one image behind a token, from a thread of the test."""

    def __init__(self, tags: list[str]) -> None:
        body = json.dumps({"name": "web", "tags": tags}).encode()
        wanted = "Basic " + base64.b64encode(b"bot:hush-hush-hush").decode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                allowed = self.headers.get("Authorization") == wanted
                self.send_response(200 if allowed else 401)
                if not allowed:
                    self.send_header("WWW-Authenticate", 'Basic realm="test"')
                answer = b"{}" if not allowed or self.path == "/v2/" else body
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def declare_chain(cli: Cli, host: str) -> None:
    login = {"auths": {host: {"username": "bot", "password": "hush-hush-hush"}}}
    cli.api.create({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pull", "namespace": cli.namespace},
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": json.dumps(login)},
    })  # fmt: skip
    scan: dict[str, Any] = {"lastScanResult": {"tagCount": 2, "scanTime": NOW, "revision": "1", "latestTags": ["1.1.0", "1.0.0"]}}
    cli.create(image_repository("web", f"{host}/web", secretRef={"name": "pull"}, insecure=True), ready(**scan))
    cli.create(image_policy("web"), ready(latestRef={"name": f"{host}/web", "tag": "1.1.0"}))
    cli.create(automation("fleet", "fleet"), ready(lastPushCommit="0" * 40, lastPushTime=NOW))


def test_explain_follows_the_chain_with_the_secret_of_the_repository(cli: Cli) -> None:
    with Registry(["1.0.0", "1.1.0", "1.2.0", "latest"]) as registry:
        declare_chain(cli, registry.host)
        code, out, err = cli("explain", "imgpol/web", "-o", "json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert "hush" not in out
    assert [row["tag"] for row in found["tags"]["rows"]] == ["1.2.0", "1.1.0", "1.0.0", "latest"]
    assert found["choice"]["notes"] == ["The next scan and pass would choose 1.2.0: highest of 3 versions in >=0.0.0."]
    assert [row["automation"] for row in found["automations"]["rows"]] == ["fleet"]


def test_explain_without_the_right_to_read_secrets_uses_the_status(cli: Cli, tmp_path: Path) -> None:
    meta = {"name": "viewer", "namespace": cli.namespace}
    rule = {
        "apiGroups": ["image.toolkit.fluxcd.io"],
        "resources": ["imagepolicies", "imagerepositories"],
        "verbs": ["get", "list"],
    }
    subject = {"kind": "ServiceAccount", **meta}
    rbac = "rbac.authorization.k8s.io"
    cli.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    cli.api.create({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": [rule]})
    cli.api.create({
        "apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": meta, "subjects": [subject],
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "viewer"},
    })  # fmt: skip
    declare_chain(cli, "127.0.0.1:1")
    config = cli.cluster.service_account_kubeconfig(cli.namespace, "viewer", tmp_path / "kubeconfig")
    code, out, err = cli("explain", "imgpol/web", "-o", "json", kubeconfig=config)
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert 'missing RBAC rule {apiGroups: [""], resources: ["secrets"], verbs: ["get"]}' in found["repository"]["notes"][0]
    assert [row["tag"] for row in found["tags"]["rows"]] == ["1.1.0", "1.0.0"]
    assert 'resources: ["imageupdateautomations"]' in found["automations"]["notes"][0]


def test_explain_an_automation_whose_source_is_missing(cli: Cli) -> None:
    cli.create(automation("fleet", "fleet"), ready("False", "failed to checkout source"))
    found = json.loads(cli("explain", "iua", "fleet", "-o", "json")[1])
    assert found["source"]["notes"] == ['It cannot be read: gitrepositories.source.toolkit.fluxcd.io "fleet" not found.']
    assert found["waitsFor"]["notes"] == ["The next try: it failed, and is tried again with a growing delay."]
