"""Admission in tests: a webhook that holds requests, so that something can happen meanwhile, and a policy that denies."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.support.clusterlab import until
from tests.support.kubeapi import ApiError, KubeApi, Object
from tests.support.pki import Authority

REGISTRATION = "admissionregistration.k8s.io/v1"
LABEL = "imagebot.test/held"
"""Objects with this label pass the webhook."""
DENIED = {"imagebot.test/denied": "yes"}
"""Labels of objects that `denying_policy` denies."""


class HoldingWebhook:
    """Looks at writes of ConfigMaps with `LABEL`; holds those that `holds` chooses until `release`. A context manager.

    Dry runs always pass. The API server gives up after `seconds` and refuses the write.

    Args:
        api: The cluster, as administrator.
        name: Of the configuration, in the whole cluster.
        seconds: How long the API server waits for an answer.
    """

    def __init__(self, api: KubeApi, name: str, *, seconds: int = 10) -> None:
        self.holds: Callable[[str, str], bool] = lambda operation, name: False
        """From an operation (`CREATE`, `UPDATE`, `DELETE`) and the name of the object."""
        self.seen: list[tuple[str, str]] = []
        """Writes that came, dry runs left out."""
        self.held = threading.Event()
        """Set while a request is held, or was."""
        self._api, self._name, self._seconds = api, name, seconds
        self._changed, self._round = threading.Condition(), 0
        self._probed = threading.Event()
        authority = Authority("admission")
        self._authority = authority.certificate
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.socket = _context(authority).wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="admission", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._api.apply(self._configuration())
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._api.delete(REGISTRATION, "ValidatingWebhookConfiguration", self._name, missing_ok=True)
        self._server.shutdown()
        self._thread.join(20)
        self._server.server_close()

    def asked(self, namespace: str) -> bool:
        """Whether the API server asks us by now; to be repeated until it does."""
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "probe", "namespace": namespace, "labels": {LABEL: "yes"}},
        }
        with contextlib.suppress(ApiError):  # it gave up waiting
            self._api.create(body, dry_run=True)
        return self._probed.is_set()

    def release(self) -> None:
        """Answer whatever is held, and hold nothing more until `holds` is set again."""
        self.holds = lambda operation, name: False
        with self._changed:
            self._round += 1
            self._changed.notify_all()

    def _configuration(self) -> Object:
        host, port = self._server.server_address[:2]
        bundle = base64.b64encode(self._authority).decode()
        return {
            "apiVersion": REGISTRATION,
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": self._name},
            "webhooks": [
                {
                    "name": "held.imagebot.test",
                    "clientConfig": {"url": f"https://{host!s}:{port}/", "caBundle": bundle},
                    "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["*"]}],
                    "objectSelector": {"matchLabels": {LABEL: "yes"}},
                    "admissionReviewVersions": ["v1"],
                    "sideEffects": "None",
                    "timeoutSeconds": self._seconds,
                    "failurePolicy": "Fail",
                }
            ],
        }

    def _judge(self, request: Object) -> None:
        if request.get("dryRun"):
            self._probed.set()
            return
        what = request["operation"], str(request["name"])
        self.seen.append(what)
        if self.holds(*what):
            with self._changed:
                present = self._round
                self.held.set()
                self._changed.wait_for(lambda: self._round != present, 60)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                webhook._judge(review["request"])
                answer: Any = {**review, "response": {"uid": review["request"]["uid"], "allowed": True}}
                answer.pop("request")
                body = json.dumps(answer).encode()
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # whoever asked has given up

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _context(authority: Authority) -> ssl.SSLContext:
    certificate, key = authority.server(["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "server.pem"
        file.write_bytes(certificate + key)
        context.load_cert_chain(file)
    return context


@contextmanager
def denying_policy(api: KubeApi, namespace: str) -> Iterator[None]:
    """A ValidatingAdmissionPolicy that denies ConfigMaps with `DENIED` in a namespace, in force when it is entered."""
    name = f"denied-{namespace}"
    policy = {
        "apiVersion": REGISTRATION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "objectSelector": {"matchLabels": DENIED},
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE"]}
                ],
            },
            "validations": [{"expression": "false", "message": "not here"}],
        },
    }
    binding = {
        "apiVersion": REGISTRATION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    try:
        api.apply(policy)
        api.apply(binding)
        until(lambda: _denies(api, namespace), "the policy to be in force")
        yield
    finally:
        for body in (binding, policy):
            api.delete(REGISTRATION, str(body["kind"]), name, missing_ok=True)


def _denies(api: KubeApi, namespace: str) -> bool:
    meta = {"name": "probe", "namespace": namespace, "labels": DENIED}
    try:
        api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}, dry_run=True)
    except ApiError as error:
        return "not here" in error.message
    return False
