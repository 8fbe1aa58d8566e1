"""`imagebot install --export` prints what the chart renders by default."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import yaml

from reconcile.cli.install import RENDERED, objects
from tests.support.chart import Helm, Object
from tests.support.controlplane import Cluster


def without_helm(body: Object) -> Object:
    """The object without the labels that say that Helm keeps it."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {k: clean(v) for k, v in value.items() if k != "helm.sh/chart"}
            return {k: "imagebot" if k == "app.kubernetes.io/managed-by" else v for k, v in kept.items()}
        return [clean(v) for v in value] if isinstance(value, list) else value

    cleaned: Object = clean(body)
    return cleaned


def test_the_kept_objects_are_those_of_the_chart(helm: Helm) -> None:
    rendered = "---\n".join(yaml.safe_dump(without_helm(body), sort_keys=False, width=130) for body in helm.objects())
    if os.environ.get("IMAGEBOT_WRITE_GOLDEN"):
        RENDERED.write_text(rendered)
    kept = list(yaml.safe_load_all(RENDERED.read_text()))
    assert kept == [without_helm(body) for body in helm.objects()]


def test_namespace_and_image_are_replaced_everywhere() -> None:
    made = list(objects("other", "registry.example/imagebot:1", crds=False))
    assert made[0] == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}
    assert "imagebot-system" not in yaml.safe_dump_all(made)
    deployment = next(body for body in made if body["kind"] == "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/imagebot:1"


def test_wrong_words_are_refused() -> None:
    for words, code in ((["install"], 64), (["install", "--export", "-n", "Not_A_Name"], 1)):
        done = subprocess.run([sys.executable, "-m", "reconcile", *words], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert done.stdout == ""


@pytest.mark.slow
def test_the_server_takes_every_object(control_plane: Cluster) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "reconcile", "install", "--export", "-n", "default"], capture_output=True, text=True, check=True
    ).stdout
    applied = control_plane.kubectl(
        "apply", "--server-side", "--force-conflicts", "--validate=strict", "--dry-run=server", "-f", "-", stdin=printed
    )
    assert applied.stdout.count("serverside-applied") == len(list(yaml.safe_load_all(printed)))
