"""What is generated and checked in is what the code generates today."""

from __future__ import annotations

from pathlib import Path

import yaml

from reconcile.api.crd import definitions
from reconcile.app import load_packages
from reconcile.cli.crds import differences, files

CRDS = Path(__file__).parents[1] / "helm" / "crds"


def test_the_charts_definitions_are_those_of_the_models() -> None:
    assert differences(definitions(load_packages().scheme), CRDS, all_of_it=True) == []


def test_the_charts_definitions_read_back_as_they_were_made() -> None:
    made = definitions(load_packages().scheme)
    assert {name: yaml.safe_load(text) for name, text in files(made).items()} == {f"{name}.yaml": made[name] for name in made}
    assert len(made) == len(load_packages().scheme.kinds)
