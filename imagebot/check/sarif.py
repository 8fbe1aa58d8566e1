"""Findings as a log in the Static Analysis Results Interchange Format (OASIS SARIF 2.1.0). Pure."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from imagebot.check.findings import RULES, Finding

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
ROOT = "%SRCROOT%"


def as_sarif(findings: Sequence[Finding], version: str, root: Path) -> dict[str, Any]:
    """The log.

    Args:
        findings: in order.
        version: of the program.
        root: the folder that the command runs in; files below it are named relative to it, as code hosts expect of a checkout.
    """
    places = {rule_id: number for number, rule_id in enumerate(RULES)}
    driver = {"name": "imagebot", "semanticVersion": version, "rules": [_rule(rule_id) for rule_id in RULES]}
    results = [_result(finding, places[finding.rule.id], root) for finding in findings]
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True}],
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule_id: str) -> dict[str, Any]:
    rule = RULES[rule_id]
    return {
        "id": rule_id,
        "name": "".join(part.capitalize() for part in rule_id.split("-")),
        "shortDescription": {"text": rule.text},
        "fullDescription": {"text": rule.text},
        "help": {"text": rule.mend},
        "defaultConfiguration": {"level": str(rule.severity)},
    }


def _result(finding: Finding, number: int, root: Path) -> dict[str, Any]:
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": _artifact(finding.path, root)}}
    if finding.line:
        location["physicalLocation"]["region"] = {"startLine": finding.line, "startColumn": max(finding.column, 1)}
    if finding.subject:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.subject, "kind": "resource"}]
    # Lines move while people edit; what is wrong, and where it belongs, stays.
    mark = "\0".join((finding.rule.id, finding.path, finding.subject, finding.message))
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": number,
        "level": str(finding.level),
        "message": {"text": f"{finding.message}. {finding.advice}"},
        "locations": [location],
        "partialFingerprints": {"imagebotFinding/v1": hashlib.sha256(mark.encode("utf-8", "replace")).hexdigest()},
    }


def _artifact(path: str, root: Path) -> dict[str, Any]:
    full = os.path.normpath(root / path)
    relative = os.path.relpath(full, root)
    if relative.startswith(".."):
        return {"uri": f"file://{_quoted(full)}"}
    return {"uri": _quoted(Path(relative).as_posix()), "uriBaseId": ROOT}


def _quoted(path: str) -> str:
    return quote(os.fsencode(path), safe="/")
