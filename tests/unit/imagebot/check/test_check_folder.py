"""What `check` finds in manifests and markers, with the exact place of each finding."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from imagebot.check.checkouts import normal_url
from imagebot.check.command import check
from imagebot.check.findings import RULES, Severity
from imagebot.check.places import locate
from imagebot.check.run import Report, check_folder
from imagebot.check.sarif import as_sarif
from reconcile.app import load_packages
from reconcile.errors import Invalid
from reconcile.yamlio import load_documents

GOOD = """\
apiVersion: image.toolkit.fluxcd.io/v1
kind: ImageRepository
metadata:
  name: web
  namespace: apps
spec:
  image: registry.example.com/acme/web
  interval: 1m
---
apiVersion: image.toolkit.fluxcd.io/v1
kind: ImagePolicy
metadata:
  name: web
  namespace: apps
  labels:
    tier: front
spec:
  imageRepositoryRef:
    name: web
  filterTags:
    pattern: ^v(?P<v>.*)$
    extract: $v
  policy:
    semver:
      range: 1.x
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata:
  name: fleet
  namespace: apps
spec:
  url: https://git.example.com/acme/fleet.git
  interval: 1m
  ref:
    branch: main
---
apiVersion: image.toolkit.fluxcd.io/v1
kind: ImageUpdateAutomation
metadata:
  name: fleet
  namespace: apps
spec:
  interval: 1m
  sourceRef:
    kind: GitRepository
    name: fleet
  policySelector:
    matchLabels:
      tier: front
  git:
    commit:
      author:
        email: bot@example.com
      messageTemplate: "{{ range .Changed.Changes }}{{ .NewValue }}{{ end }}"
  update:
    path: ./deploy
"""
MARKER = 'image: registry.example.com/acme/web:1.0.0 # {"$imagepolicy": "apps:web"}\n'

Check = Callable[..., Report]


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Checks a folder with these manifests and, where files of a checkout are given, that checkout."""
    monkeypatch.chdir(tmp_path)

    def run(text: str = GOOD, files: dict[str, str] | None = None, **options: Any) -> Report:
        Path("manifests").mkdir(exist_ok=True)
        Path("manifests/all.yaml").write_text(text)
        for name, content in (files or {}).items():
            path = Path("fleet", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        repositories = ("fleet=fleet",) if files is not None else ()
        return check_folder(Path("manifests"), load_packages().scheme, repositories, **options)

    return run


def told(report: Report) -> list[str]:
    return [f"{f.place}: {f.level}: {f.rule.id}" for f in report.findings]


def edited(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def test_good_manifests_with_a_good_marker_are_clean(checked: Check) -> None:
    report = checked(files={"deploy/web.yaml": MARKER, "README.md": MARKER, "deploy/plain.yaml": "a: 1\n"})
    assert told(report) == []
    assert (report.files, report.objects, report.markers, report.checkouts) == (1, 4, 1, ("fleet",))


MANIFEST_CASES: list[tuple[str, str, str, str]] = [
    (
        "  image: registry.example.com/acme/web",
        "  image: https://registry.example.com/web",
        "7:10: error: invalid-image",
        "remove 'https://'",
    ),
    (
        "  interval: 1m\n---\napiVersion: image",
        '  interval: 1m\n  exclusionList: [a, "(?!b)"]\n---\napiVersion: image',
        "9:22: error: invalid-regex",
        "invalid or unsupported Perl syntax: `(?!`",
    ),
    ("    pattern: ^v(?P<v>.*)$", "    pattern: ^v(?P<v>.*$", "21:14: error: invalid-regex", "missing closing )"),
    ("    extract: $v", "    extract: $vx", "22:14: error: invalid-extract", "the pattern has no group vx; its groups are v"),
    ("    extract: $v", "    extract: ${2}", "22:14: error: invalid-extract", "the pattern has no group 2"),
    ("    extract: $v", "    extract: fixed", "22:14: warning: doubtful-extract", "refers to no group"),
    ("      range: 1.x", "      range: '>1<2'", "25:14: error: invalid-range", "improper constraint"),
    ("      range: 1.x", "      range: 1.1||2.0 - 3.0", "25:14: warning: doubtful-range", ""),
    ("    semver:\n      range: 1.x", "    {}", "23:3: error: invalid-policy", "nobody can choose by it"),
    (
        "    semver:",
        "    numerical: {}\n    semver:",
        "24:5: warning: several-rules",
        "semver counts; numerical is without effect",
    ),
    ("  filterTags:", "  filterTagz:", "20:3: error: unknown-field", 'did you mean "filterTags"?'),
    ("      range: 1.x", "      range: 1.5", "25:14: error: invalid-value", "(put it in quotes)"),
    ("      range: 1.x", "      order: asc", "25:7: error: unknown-field", "unknown field spec.policy.semver.order"),
    ("kind: ImagePolicy", "kind: ImagePolice", "11:7: error: unknown-kind", 'did you mean "ImagePolicy"?'),
    (
        "  imageRepositoryRef:\n    name: web",
        "  imageRepositoryRef:\n    name: wep",
        "19:11: error: missing-reference",
        "no ImageRepository apps/wep",
    ),
    (
        "  imageRepositoryRef:\n    name: web",
        "  imageRepositoryRef:\n    name: web\n    namespace: team",
        "19:11: error: missing-reference",
        "there is one in namespace apps",
    ),
    (
        "    kind: GitRepository\n    name: fleet",
        "    kind: GitRepository\n    name: flee",
        "47:11: error: missing-reference",
        "GitRepository apps/flee",
    ),
    (
        "      tier: front\n  git",
        "      tier: back\n  git",
        "13:9: warning: unused-policy",
        "has no ImageUpdateAutomation that selects it",
    ),
    (
        "    matchLabels:\n      tier: front",
        "    matchExpressions: [{key: tier, operator: Like}]",
        "48:3: error: invalid-selector",
        "is not a valid label selector operator",
    ),
    ("{{ .NewValue }}", "{{ .Value }}", "55:24: error: invalid-template", "can't evaluate field Value"),
    (
        "{{ range .Changed.Changes }}{{ .NewValue }}{{ end }}",
        "{{ .Changed.ImageResult }}",
        "55:24: error: invalid-template",
        "removed",
    ),
    ("    branch: main", "    tag: v1", "51:3: error: invalid-push", "there is no branch to push to"),
    (
        "  interval: 1m\n  ref:",
        "  interval: 1m\n  secretRef: {name: login}\n  ref:",
        "35:21: warning: missing-secret",
        "no Secret apps/login",
    ),
    ("apiVersion: source", "spec: [\n---\napiVersion: source", "28:1: error: invalid-yaml", ""),
]


@pytest.mark.parametrize(("old", "new", "wanted", "words"), MANIFEST_CASES)
def test_a_fault_of_a_manifest_is_found_where_it_is(old: str, new: str, wanted: str, words: str, checked: Check) -> None:
    report = checked(edited(old, new))
    assert f"manifests/all.yaml:{wanted}" in told(report)
    finding = report.findings[told(report).index(f"manifests/all.yaml:{wanted}")]
    assert words in finding.message
    assert finding.advice.endswith((".", "?", ")"))


def test_everything_that_the_schema_refuses_is_said_at_its_own_place(checked: Check) -> None:
    text = edited("        email: bot@example.com", "        nmae: bot").replace(
        "  interval: 1m\n  sourceRef", "  interval: 1y\n  sourceRef"
    )
    assert [line for line in told(checked(text)) if "error" in line] == [
        "manifests/all.yaml:44:13: error: invalid-value",
        "manifests/all.yaml:53:7: error: invalid-value",
        "manifests/all.yaml:54:9: error: unknown-field",
    ]


def test_the_same_object_twice(checked: Check) -> None:
    first = GOOD.split("---\n")[0]
    report = checked(f"{GOOD}---\n{first}")
    assert told(report) == ["manifests/all.yaml:62:9: error: duplicate-object"]
    assert report.findings[0].message == "ImageRepository apps/web stands in manifests/all.yaml:1 already; that one counts"


def test_items_of_a_list_have_their_own_places(checked: Check) -> None:
    items = [yaml.safe_load(part) for part in edited("range: 1.x", 'range: "?"').split("---\n")]
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}, sort_keys=False)
    report = checked(text)
    assert [f.rule.id for f in report.findings] == ["invalid-range"]
    finding = report.findings[0]
    assert text.splitlines()[finding.line - 1].strip().startswith("range:")
    assert text.splitlines()[finding.line - 1][finding.column - 1 :] == "'?'"


def test_a_service_that_would_refuse_it_is_never_called_clean(checked: Check) -> None:
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: apps}\ndata: {password: 'hunter2!'}\n"
    report = checked(f"{GOOD}---\n{secret}")
    assert told(report) == ["manifests/all.yaml:59:1: error: invalid-manifest"]
    assert "hunter2" not in report.findings[0].message
    sops = f"{secret}sops: {{version: '3'}}\n"
    assert told(checked(f"{GOOD}---\n{sops}")) == []


def test_templates_and_other_files_are_nothing_to_fail_for(checked: Check, tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests/chart.yaml").write_text("{{ if .Values.x }}\na: [\n")
    assert told(checked()) == ["manifests/chart.yaml:1:2: warning: invalid-yaml"]


def test_many_files_that_are_not_ours_are_no_error(checked: Check, tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    for number in range(120):
        (tmp_path / f"manifests/{number}.yaml").write_text("{{ if .Values.x }}\na: [\n")
    report = checked()
    assert {finding.level for finding in report.findings} == {Severity.WARNING}
    assert len([finding for finding in report.findings if finding.rule.id == "invalid-yaml"]) == 120


def test_secrets_that_others_make_count(checked: Check) -> None:
    named = edited("  interval: 1m\n  ref:", "  interval: 1m\n  secretRef: {name: login}\n  ref:")
    for kind, spec in (("SealedSecret", {}), ("ExternalSecret", {"target": {"name": "login"}})):
        name = "login" if not spec else "other"
        made = yaml.safe_dump(
            {"apiVersion": "x.io/v1", "kind": kind, "metadata": {"name": name, "namespace": "apps"}, "spec": spec}
        )
        assert told(checked(f"{named}---\n{made}")) == []


def test_a_repository_of_another_namespace_must_allow_it(checked: Check) -> None:
    text = edited("  name: web\n  namespace: apps\nspec:\n  image:", "  name: web\n  namespace: shared\nspec:\n  image:").replace(
        "  imageRepositoryRef:\n    name: web", "  imageRepositoryRef:\n    name: web\n    namespace: shared"
    )
    assert told(checked(text)) == ["manifests/all.yaml:19:11: error: access-denied"]
    allowed = text.replace("  image: reg", "  accessFrom: {namespaceSelectors: [{matchLabels: {team: a}}]}\n  image: reg")
    assert told(checked(allowed)) == []  # the labels of the namespace are somewhere else
    for team, found in (("a", []), ("b", ["manifests/all.yaml:20:11: error: access-denied"])):
        space = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: apps, labels: {{team: {team}}}}}\n"
        assert told(checked(f"{allowed}---\n{space}")) == found


def test_automations_in_each_others_way(checked: Check) -> None:
    second = GOOD.split("---\n")[3].replace("  name: fleet\n  namespace", "  name: second\n  namespace")
    overlapping = second.replace("./deploy", "deploy/web/")
    report = checked(f"{GOOD}---\n{overlapping}")
    assert told(report) == ["manifests/all.yaml:78:5: warning: overlapping-automations"]
    assert (
        "ImageUpdateAutomation apps/fleet (manifests/all.yaml:38) updates branch main too: deploy and deploy/web, both with web"
        in (report.findings[0].message)
    )
    assert told(checked(f"{GOOD}---\n{second.replace('./deploy', 'deployments')}")) == []
    elsewhere = second.replace("  git:\n", "  git:\n    push: {branch: bot}\n")
    assert told(checked(f"{GOOD}---\n{elsewhere}")) == []
    others = overlapping.replace("tier: front", "tier: back")
    assert told(checked(f"{GOOD}---\n{others}")) == ["manifests/all.yaml:78:5: note: overlapping-automations"]


MARKER_CASES = [
    ('a: 1 # {"$imagepolicy": "apps:wbe"}\n', "1:4: error: unknown-policy", "Did you mean apps:web?"),
    ('a: 1 # {"$imagepolicy": "aps:web"}\n', "1:4: error: unknown-policy", "Did you mean apps:web?"),
    ('a: 1 # {"$imagepolicy": "production:api"}\n', "1:4: warning: foreign-marker", "Mend the namespace"),
    ('# é\ná: "ü" # {"$imagepolicy": "apps:web:tga"}\n', "2:4: error: invalid-marker", "Did you mean apps:web:tag?"),
    ('a: 1 # {"$imagepolicy": "apps"}\n', "1:4: error: invalid-marker", ""),
    ('a: 1 # {"$imagepolicy": "apps:web:digest"}\n', "1:4: warning: marker-without-digest", "digestReflectionPolicy"),
    ('a: 1 # {"$imagepolicy": 7}\n', "1:6: error: invalid-marker", ""),
    ('a: {b: 1} # {"$imagepolicy": "apps:web"}\n', "1:11: error: invalid-marker", ""),
    ('a: !!int 1 # {"$imagepolicy": "apps:web:tag"}\n', "1:12: warning: doubtful-marker", ""),
    ('a: [ # {"$imagepolicy": "apps:web"}\n', "2:1: error: unusable-file", "Make it YAML"),
]


@pytest.mark.parametrize(("text", "wanted", "mend"), MARKER_CASES)
def test_a_fault_of_a_marker_is_found_where_it_is(text: str, wanted: str, mend: str, checked: Check) -> None:
    report = checked(files={"deploy/a.yaml": text, "deploy/web.yaml": MARKER})
    assert told(report) == [f"fleet/deploy/a.yaml:{wanted}"]
    assert mend in report.findings[0].advice


def test_a_marker_that_nobody_looks_at(checked: Check) -> None:
    report = checked(files={"deploy/web.yaml": MARKER, "deployments/web.yaml": MARKER})
    assert told(report) == ["fleet/deployments/web.yaml:1:8: warning: uncovered-marker"]
    assert "look only below deploy" in report.findings[0].message


def test_a_marker_whose_policy_is_not_selected(checked: Check) -> None:
    text = edited("      tier: front\n  git", "      tier: back\n  git")
    assert "fleet/deploy/web.yaml:1:8: warning: unselected-marker" in told(checked(text, {"deploy/web.yaml": MARKER}))


def test_a_policy_of_a_namespace_that_the_automation_is_not_in(checked: Check) -> None:
    policy = GOOD.split("---\n")[1].replace("namespace: apps", "namespace: team")
    text = f"{GOOD}---\n{policy}"
    report = checked(text, {"deploy/web.yaml": MARKER, "deploy/b.yaml": MARKER.replace("apps:web", "team:web")})
    assert "fleet/deploy/b.yaml:1:8: error: foreign-marker" in told(report)


def test_a_policy_without_markers_and_a_path_that_is_not_there(checked: Check) -> None:
    assert told(checked(files={"other/plain.yaml": "a: 1\n"})) == [
        "manifests/all.yaml:13:9: warning: unused-policy",
        "manifests/all.yaml:57:11: error: missing-path",
    ]


def test_rules_can_be_ignored(checked: Check) -> None:
    assert told(checked(files={"other/plain.yaml": "a: 1\n"}, ignored={"unused-policy", "missing-path"})) == []


def test_links_are_not_followed(checked: Check, tmp_path: Path) -> None:
    (tmp_path / "outside.yaml").write_text('a: 1 # {"$imagepolicy": "apps:nobody"}\n')
    (tmp_path / "fleet/deploy").mkdir(parents=True)
    (tmp_path / "fleet/deploy/link.yaml").symlink_to(tmp_path / "outside.yaml")
    (tmp_path / "fleet/deploy/folder").symlink_to(tmp_path)
    assert told(checked(files={"deploy/web.yaml": MARKER})) == []


# --- which folder is a checkout


def git(folder: Path, url: str) -> None:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "remote", "add", "origin", url], check=True)


@pytest.mark.parametrize("url", ["git@git.example.com:acme/fleet", "ssh://git@git.example.com:22/acme/fleet.git"])
def test_a_folder_inside_of_a_checkout_is_known_by_the_remote(url: str, checked: Check, tmp_path: Path) -> None:
    git(tmp_path, url)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/web.yaml").write_text(MARKER.replace("apps:web", "apps:wep"))
    assert "deploy/web.yaml:1:8: error: unknown-policy" in told(checked())


def test_another_checkout_round_the_folder_is_left_alone(checked: Check, tmp_path: Path) -> None:
    git(tmp_path, "https://git.example.com/somebody/else.git")
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/web.yaml").write_text(MARKER.replace("apps:web", "apps:wep"))
    report = checked()
    assert (told(report), report.checkouts) == ([], ())


def test_the_folder_itself_is_the_checkout_of_its_only_repository(checked: Check, tmp_path: Path) -> None:
    (tmp_path / "manifests/deploy").mkdir(parents=True)
    git(tmp_path / "manifests", "https://mirror.example.com/x.git")
    (tmp_path / "manifests/deploy/web.yaml").write_text(MARKER.replace("apps:web", "apps:wep"))
    assert "manifests/deploy/web.yaml:1:8: error: unknown-policy" in told(checked())


@pytest.mark.parametrize("text", ["fleet", "=x", "nobody=.", "fleet=missing", "other/fleet=."])
def test_a_repository_that_cannot_be_understood(text: str, checked: Check, tmp_path: Path) -> None:
    checked()
    with pytest.raises(Invalid, match=re.escape(f"--repository {text}")):
        check_folder(tmp_path / "manifests", load_packages().scheme, [text])


@pytest.mark.parametrize(
    "url",
    ["https://user:secret@Example.com/a/b.git", "ssh://git@example.com:2222/a/b", "git@example.com:a/b.git", "example.com:a/b/"],
)
def test_forms_of_one_address_are_equal(url: str) -> None:
    assert normal_url(url) == "example.com/a/b"


# --- places


def test_every_value_is_found_where_the_parser_has_it() -> None:
    places = locate(GOOD)
    lines = GOOD.splitlines()
    for document, line in load_documents(GOOD, "x"):
        for path, (at, column) in places[line].values.items():
            value: Any = document
            for step in path:
                value = value[step]
            if isinstance(value, str):
                assert lines[at - 1][column - 1 :].strip('"').startswith(value), path


def test_places_of_all_forms() -> None:
    places = locate("a: &x [1, {b: 2}]\nc:\n- d\n-  e: |\n    f\n? [g, h]\n: *x\ni: 1\n")[1]
    assert places.value(("a", 1, "b")) == (1, 15)
    assert places.value(("c", 1, "e")) == (4, 7)
    assert (places.key(("i",)), places.value(("i",))) == ((8, 1), (8, 4))
    assert places.value(("c", 0, "missing")) == (3, 3)
    assert places.value(("nothing",)) == (1, 1)


# --- SARIF

REQUIRED = {
    "log": ("version", "runs"),
    "run": ("tool",),
    "tool": ("driver",),
    "driver": ("name",),
    "rule": ("id",),
    "result": ("message",),
    "message": ("text",),
    "invocation": ("executionSuccessful",),
}
"""What the schema of SARIF 2.1.0 requires of each object that we write."""


def test_the_log_has_what_the_standard_requires(checked: Check, tmp_path: Path) -> None:
    report = checked(
        edited("range: 1.x", "range: '?'"), {"deploy/a.yaml": MARKER_CASES[0][0], "deploy/ü b.yaml": MARKER_CASES[0][0]}
    )
    log = json.loads(json.dumps(as_sarif(report.findings, "1.2.3", Path.cwd())))
    run = log["runs"][0]
    driver = run["tool"]["driver"]
    for name, found in (("log", [log]), ("run", [run]), ("tool", [run["tool"]]), ("driver", [driver]), ("rule", driver["rules"]),
                        ("result", run["results"]), ("message", [r["message"] for r in run["results"]]),
                        ("invocation", run["invocations"])):  # fmt: skip
        assert all(key in item for item in found for key in REQUIRED[name]), name
    assert log["version"] == "2.1.0"
    assert [rule["id"] for rule in driver["rules"]] == list(RULES)
    assert len({json.dumps(result["partialFingerprints"]) for result in run["results"]}) == len(report.findings) > 2
    for result, finding in zip(run["results"], report.findings, strict=True):
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == finding.rule.id
        assert result["level"] in {"none", "note", "warning", "error"}
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uriBaseId"] == "%SRCROOT%"
        assert not re.search(r"[\s\\]", place["artifactLocation"]["uri"])
        assert place["region"] == {"startLine": finding.line, "startColumn": finding.column}
    assert "fleet/deploy/%C3%BC%20b.yaml" in {
        r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]
    }


def test_files_outside_of_where_the_command_runs_have_whole_addresses(checked: Check, tmp_path: Path) -> None:
    report = checked(edited("range: 1.x", "range: '?'"))
    inside = tmp_path / "somewhere"
    place = as_sarif(report.findings, "1", inside)["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "manifests/all.yaml"  # relative paths count from there
    other = check_folder(tmp_path / "manifests", load_packages().scheme)
    found = as_sarif(other.findings, "1", inside)["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert found == {"uri": f"file://{tmp_path}/manifests/all.yaml"}


# --- the command


def program(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "reconcile", "check", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    return done.returncode, done.stdout, done.stderr


def command(*arguments: str) -> tuple[int, str]:
    """The command in this process: exit code and stdout."""
    result = CliRunner().invoke(check, list(arguments), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return int(result.return_value), result.stdout


def test_the_program(checked: Check, tmp_path: Path) -> None:
    checked(files={"deploy/web.yaml": MARKER, "b.yaml": MARKER})
    code, out, err = program("manifests", "--repository", "fleet=fleet", "--strict")
    lines = out.splitlines()
    assert (code, err) == (2, "")
    assert lines[0].startswith("fleet/b.yaml:1:8: warning: marker apps:web: ")
    assert lines[0].endswith(" [uncovered-marker]")
    assert lines[1:] == [f"    {RULES['uncovered-marker'].mend}", "", "1 warning: 4 objects in 1 file, 2 markers in fleet"]


def test_exit_codes_and_forms(checked: Check, tmp_path: Path) -> None:
    checked(files={"deploy/web.yaml": MARKER})
    arguments = ("manifests", "--repository", "fleet=fleet")
    assert command(*arguments, "--strict") == (0, "nothing found: 4 objects in 1 file, 1 marker in fleet\n")
    (tmp_path / "fleet/b.yaml").write_text(MARKER)
    assert command(*arguments)[0] == 0
    assert command(*arguments, "--strict")[0] == 2
    assert command(*arguments, "--strict", "--ignore", "uncovered-marker")[0] == 0
    (tmp_path / "manifests/all.yaml").write_text(edited("range: 1.x", "range: '?'"))
    code, out = command(*arguments, "--strict", "-o", "json")
    data = json.loads(out)
    assert (code, data["summary"]["errors"], data["summary"]["warnings"]) == (1, 1, 1)
    assert {"file", "line", "column", "severity", "rule", "message", "mend"} <= data["findings"][0].keys()
    code, out = command(*arguments, "-o", "sarif")
    assert (code, len(json.loads(out)["runs"][0]["results"])) == (1, 2)


def test_options_for_a_folder_want_one() -> None:
    with pytest.raises(click.UsageError, match="imagebot check DIRECTORY"):
        command("--strict")


def test_without_a_folder_it_is_the_cluster_that_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nonexistent/config")
    with pytest.raises((Invalid, click.ClickException), match="there is no kubeconfig /nonexistent/config"):
        command()


def test_a_check_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="is not a folder"):
        command(str(tmp_path / "missing"))


def test_every_rule_says_what_to_do() -> None:
    for rule in RULES.values():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.id)
        assert rule.text.endswith(".")
        assert rule.mend.endswith(".")
        assert rule.severity in Severity
