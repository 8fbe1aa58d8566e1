"""The commands of canaries against a real API server; a thread of the test answers in the place of a controller."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from reconcile.api.crd import definitions
from reconcile.app import load_packages
from reconcile.cli.main import main
from tests.support.canaryworld import canary, deployment
from tests.support.controlplane import Cluster

FLAGGER = "flagger.app/v1beta1"
ACTION, PAUSE = "imagebot.dev/action", "imagebot.dev/pause"
OURS, OTHER = "454545454545", "666666666666"

Object = dict[str, Any]


def at(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def running(phase: str = "Progressing", **more: Any) -> Object:
    return {"phase": phase, "lastAppliedSpec": OURS, "lastPromotedSpec": OTHER, "phaseSince": at(-90), "failedChecks": 0, **more}


class Cli:
    """The program, with the kubeconfig of a cluster."""

    def __init__(self, cluster: Cluster, namespace: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.api, self.cluster, self.namespace, self._capsys = cluster.api, cluster, namespace, capsys

    def __call__(self, *words: str, kubeconfig: Path | None = None, everywhere: bool = False) -> tuple[int, str, str]:
        place = ["--kubeconfig", str(kubeconfig or self.cluster.kubeconfig), *([] if everywhere else ["-n", self.namespace])]
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["canary", *words, *place])
        structlog.reset_defaults()
        out, err = self._capsys.readouterr()
        assert "\x1b" not in out + err
        return int(ended.value.code or 0), out, err

    def declare(self, name: str = "web", status: Object | None = None, **more: Any) -> None:
        body = canary(**more)
        body["metadata"] = {"name": name, "namespace": self.namespace}
        self.api.create(body)
        if status is not None:
            self.status(name, status)

    def status(self, name: str, status: Object) -> None:
        entry = {"type": "Promoted", "status": "Unknown", "reason": status["phase"], "message": "x"}
        stamped = {**entry, "lastUpdateTime": at(0), "lastTransitionTime": at(0)}
        patch = {"status": {"conditions": [stamped], **status}}
        self.api.merge_patch(FLAGGER, "Canary", name, patch, self.namespace, subresource="status")

    def annotations(self, name: str = "web") -> dict[str, str]:
        found = self.api.get(FLAGGER, "Canary", name, self.namespace)
        return dict(found["metadata"].get("annotations") or {})

    @contextmanager
    def service(self, answer: Callable[[str], Object], name: str = "web") -> Iterator[None]:
        """Answer to the first request with a status."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.05):
                if asked := self.annotations(name).get(ACTION):
                    self.status(name, answer(asked))
                    return

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(20)


@pytest.fixture
def cli(control_plane: Cluster, namespace: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    for manifest in definitions(load_packages().scheme).values():
        control_plane.api.install_crd(manifest)
    return Cli(control_plane, namespace, capsys)


# --- looking


def test_list_shows_each_canary_in_a_line(cli: Cli) -> None:
    cli.declare("fresh")
    cli.declare("web", running(canaryWeight=20, failedChecks=1, nextStepTime=at(30)))
    code, out, err = cli("list")
    head, fresh, web = out.splitlines()
    assert (code, err) == (0, "")
    assert head.split() == ["NAME", "PHASE", "WEIGHT", "FAILED", "NEXT", "SINCE", "AGE", "TARGET", "WHY"]
    assert fresh.endswith("no controller has looked at it yet")
    assert web.split()[:4] == ["web", "Progressing", "20%", "1/2"]
    assert cli("list", "-A", everywhere=True)[1].splitlines()[0].split()[0] == "NAMESPACE"


def test_list_for_machines(cli: Cli) -> None:
    code, out, err = cli("list")
    assert (code, out, err) == (0, "", f'no Canaries in namespace "{cli.namespace}"\n')
    cli.declare("web", running())
    found = json.loads(cli("list", "-o", "json")[1])
    assert (found["kind"], [item["status"]["phase"] for item in found["items"]]) == ("List", ["Progressing"])
    assert yaml.safe_load(cli("list", "-o", "yaml")[1]) == found
    assert cli("list", "-o", "name")[1] == "canary/web\n"
    assert cli("list", "-l", "team=none", "-o", "name")[1] == ""


def test_status_has_the_checks_with_their_queries_when_asked(cli: Cli) -> None:
    check = {"metric": "errors", "query": "sum(errors)", "value": "7", "threshold": "<= 5", "verdict": "Fail", "time": at(-5)}
    hook = {"name": "load", "url": "http://user:hush-hush@load.test/"}
    cli.declare("web", running(canaryWeight=20, checks=[check], images=["app=web:2"]), webhooks=[hook])
    code, out, _ = cli("status", "web")
    assert code == 0
    assert "20 → [20]" not in out
    assert "[20] → 40 → promotion" in out
    assert "app=web:2" in out
    assert "sum(errors)" not in out
    assert "hush" not in out
    assert "errors: sum(errors)" in cli("status", "canary/web", "--queries")[1]
    assert json.loads(cli("status", "web", "-o", "json")[1])["metadata"]["name"] == "web"


def test_what_is_not_there_and_what_is_no_canary(cli: Cli) -> None:
    assert cli("status", "none")[::2] == (1, 'imagebot: canaries.flagger.app "none" not found\n')
    code, _, err = cli("status", "imagepolicy/web")
    assert (code, err) == (1, "imagebot: imagepolicy/web is no Canary: name one, as NAME or canary/NAME\n")


def test_a_missing_right_says_which(cli: Cli, tmp_path: Path) -> None:
    cli.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": cli.namespace}})
    config = cli.cluster.service_account_kubeconfig(cli.namespace, "nobody", tmp_path / "kubeconfig")
    code, out, err = cli("list", kubeconfig=config)
    assert (code, out) == (1, "")
    assert 'missing RBAC rule {apiGroups: ["flagger.app"], resources: ["canaries"], verbs: ["list"]}' in err


# --- steering


@pytest.mark.parametrize(
    ("verb", "phase", "after"),
    [("promote", "Progressing", "Promoting"), ("rollback", "WaitingPromotion", "Failed"), ("retry", "Failed", "Progressing")],
)
def test_a_request_is_made_and_waited_for(cli: Cli, verb: str, phase: str, after: str) -> None:
    cli.declare("web", running(phase))
    with cli.service(lambda asked: running(after, lastHandledAction=asked)):
        code, out, err = cli(verb, "web", "--wait", "--timeout", "20s")
    assert (code, out) == (0, "")
    assert err.splitlines()[1:] == [
        "◎ waiting for the service",
        f"✔ Canary {cli.namespace}/web: done, the phase is {after}",
    ]
    asked = cli.annotations()[ACTION]
    assert asked.startswith(f"{verb} 20")
    cli.status("web", running(phase))
    assert cli(verb, "web")[0] == 0
    assert cli.annotations()[ACTION] != asked


def test_a_request_that_makes_no_sense_writes_nothing(cli: Cli) -> None:
    cli.declare("web", running("Succeeded", lastPromotedSpec=OURS))
    for verb in ("promote", "rollback", "retry"):
        code, _, err = cli(verb, "web")
        assert (code, err.count("\n")) == (1, 1)
        assert err.startswith(f"imagebot: Canary {cli.namespace}/web cannot be ")
    assert cli.annotations() == {}


def test_a_run_that_ends_otherwise_is_said_at_once(cli: Cli) -> None:
    cli.declare("web", running())
    with cli.service(lambda _: running("Failed", failure="errors 7 > 5")):
        code, _, err = cli("promote", "web", "--wait", "--timeout", "20s")
    assert (code, err.splitlines()[-1].endswith("Failed: errors 7 > 5")) == (1, True)


def test_nobody_listens(cli: Cli) -> None:
    cli.declare("web", running())
    code, _, err = cli("promote", "web", "--wait", "--timeout", "300ms")
    assert code == 1
    assert err.splitlines()[-1].endswith(f"imagebot canary explain web -n {cli.namespace}")


def test_pause_and_resume(cli: Cli) -> None:
    cli.declare("web", running())
    assert cli("pause", "web", "--reason", "lunch")[2] == f"✔ Canary {cli.namespace}/web is held where it is: lunch\n"
    assert cli.annotations() == {PAUSE: "lunch"}
    assert "paused: lunch" in cli("list")[1]
    assert cli("resume", "web")[2] == f"✔ Canary {cli.namespace}/web goes on\n"
    assert cli.annotations() == {}
    assert cli("resume", "web")[2] == f"✔ Canary {cli.namespace}/web was not paused\n"
    assert cli("pause", "web")[0] == 0
    assert cli.annotations()[PAUSE]


# --- explaining and watching


def test_explain_reads_what_is_live(cli: Cli) -> None:
    cli.declare("web", running("Failed", failure="errors 7 > 5"), provider="kubernetes", iterations=3)
    target = deployment()
    target["metadata"]["namespace"] = cli.namespace
    target["spec"]["replicas"] = 0
    cli.api.create(target)
    involved = {"apiVersion": FLAGGER, "kind": "Canary", "name": "web", "namespace": cli.namespace}
    event = {"type": "Warning", "reason": "Synced", "message": "Canary failed! Scaling down", "count": 2}
    meta = {"name": "web.1", "namespace": cli.namespace}
    times = {"firstTimestamp": at(-60), "lastTimestamp": at(-30)}
    cli.api.create({"apiVersion": "v1", "kind": "Event", "metadata": meta, "involvedObject": involved, **times, **event})
    code, out, err = cli("explain", "web")
    assert (code, err) == (0, "")
    assert "✗ errors 7 > 5." in out
    assert "◎ The target has changed since: a run begins when the service looks next." in out
    assert "· No run begins while the primary is not ready." in out
    assert "Canary failed! Scaling down  (x2)" in out
    found = json.loads(cli("explain", "web", "-o", "json")[1])
    assert {"kind": "bad", "text": "errors 7 > 5."} in found["explanation"]
    assert found["object"]["status"]["phase"] == "Failed"
    assert [each["message"] for each in found["events"]] == ["Canary failed! Scaling down"]


def test_explain_without_the_right_to_read_workloads(cli: Cli, tmp_path: Path) -> None:
    cli.declare("web", running("Succeeded", lastPromotedSpec=OURS))
    name, group = {"name": "reader", "namespace": cli.namespace}, "rbac.authorization.k8s.io"
    rule = {"apiGroups": ["flagger.app"], "resources": ["canaries"], "verbs": ["get"]}
    cli.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name})
    cli.api.create({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": name, "rules": [rule]})
    subject = {"kind": "ServiceAccount", **name}
    reference = {"apiGroup": group, "kind": "Role", "name": "reader"}
    cli.api.create({
        "apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": name, "subjects": [subject], "roleRef": reference,
    })  # fmt: skip
    config = cli.cluster.service_account_kubeconfig(cli.namespace, "reader", tmp_path / "kubeconfig")
    code, out, _ = cli("explain", "web", kubeconfig=config)
    assert code == 0
    assert "Not known, because you may not read it" in out
    assert "Its Events could not be read" in out


def test_watch_ends_with_the_run(cli: Cli) -> None:
    cli.declare("web", running(canaryWeight=20))

    def step(*statuses: Object) -> threading.Thread:
        def work() -> None:
            for status in statuses:
                threading.Event().wait(1.5)
                cli.status("web", status)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    thread = step(running(canaryWeight=40), running("Succeeded", canaryWeight=0, lastPromotedSpec=OURS))
    code, out, _ = cli("watch", "web", "--timeout", "30s")
    thread.join()
    lines = [line.split(maxsplit=2)[2] for line in out.splitlines()]
    assert (code, [line.split()[:2] for line in lines]) == (
        0,
        [["Progressing", "20%"], ["Progressing", "40%"], ["Succeeded", "-"]],
    )
    cli.status("web", running())
    thread = step(running("Failed", failure="errors 7 > 5"))
    code, out, _ = cli("watch", "web", "--timeout", "30s")
    thread.join()
    assert (code, out.splitlines()[-1].endswith("errors 7 > 5")) == (1, True)


def test_watch_of_what_rests_ends_at_once(cli: Cli) -> None:
    cli.declare("web", running("Succeeded", lastPromotedSpec=OURS))
    assert cli("watch", "web")[0] == 0  # there is no target that could have changed
    cli.status("web", running("Failed", failure="errors 7 > 5"))
    assert cli("watch", "web")[0] == 1
    cli.status("web", running())
    code, _, err = cli("watch", "web", "--timeout", "1s")
    assert (code, err) == (1, f"imagebot: the run of Canary {cli.namespace}/web has not ended after 1s\n")
    assert cli("watch", "--timeout", "1s")[0] == 0
