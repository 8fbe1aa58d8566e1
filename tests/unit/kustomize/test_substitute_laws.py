"""Laws of substitution, and what it costs in steps."""

import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.kustomize import goyaml
from reconcile.kustomize import substitute as module
from reconcile.kustomize.forms import cut_prefix, cut_suffix
from reconcile.kustomize.goyaml_load import load
from reconcile.kustomize.substitute import Evaluator, SubstitutionError, substitute, substitute_object
from reconcile.kustomize.variables import PostBuild

pieces = st.sampled_from([*"${}#%^,/:=-?+*[]\\ \n\0aö€", "${v", "${v}", "${e:-", "$$", "1", "\udc80"])
grammar = st.lists(pieces, max_size=30).map("".join)
names = st.text(string.ascii_letters + "_", min_size=1, max_size=3)
VARIABLES = {"v": "a value", "e": "", "a": "/x/y", "ö": "größe"}


@given(grammar | st.text(), st.booleans())
def test_nothing_is_raised_but_errors_of_substitution(text, strict):
    with suppress(SubstitutionError):
        assert isinstance(substitute(text, VARIABLES, strict=strict), str)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | grammar.filter(str.isprintable),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), json_values, min_size=1, max_size=4))
def test_objects_raise_nothing_else_and_come_back_without_forms(obj):
    try:
        given_back = substitute_object(obj, VARIABLES, strict=False)
    except SubstitutionError:
        assert "$" in str(obj)
        return
    if "$" not in str(obj):
        assert given_back == obj


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), json_values, min_size=1, max_size=4))
def test_what_is_written_reads_the_same(obj):
    # A key that is `<<` merges, and the characters NEL and BOM at the start are taken for white space: Go has both quirks too.
    if "<<" not in str(obj):
        assert load(goyaml.dump(obj)) == obj


@given(st.text(st.characters(exclude_characters="$\0")))
def test_text_without_a_dollar_is_unchanged(text):
    assert substitute(text, {}, strict=True) == module.forms.settled(text)


@given(st.text(st.characters(exclude_characters="$\0", exclude_categories=["Cs"])), names)
def test_two_dollars_are_one_and_protect_a_form(text, name):
    assert substitute(f"{text}$${{{name}}}{text}", {name: "x"}, strict=True) == f"{text}${{{name}}}{text}"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_values_are_not_looked_at_again(value):
    assert substitute("a${v}b", {"v": value}, strict=True) == f"a{value}b"


@given(st.text("ab/.", max_size=12), st.text("ab/*?", max_size=6), st.booleans())
def test_a_cut_leaves_an_end_of_the_value(value, pattern, longest):
    spent = []
    assert value.endswith(cut_prefix(value, pattern, longest, spent.append))
    assert value.startswith(cut_suffix(value, pattern, longest, spent.append))


def test_a_megabyte_with_many_variables_takes_steps_like_its_size():
    variables = {f"v{number}": "x" * (number % 7) for number in range(10_000)}

    def steps(lines):
        evaluator = Evaluator(variables, strict=True)
        evaluator.text(
            "".join(f"line {number}: some more text, ${{v{number % 10_000}}} and ${{v1:-none}}\n" for number in range(lines))
        )
        return evaluator.steps

    one, two = steps(30_000), steps(60_000)
    assert one > 1_000_000
    assert two < 2.1 * one


@pytest.mark.parametrize("depth", [10, 100_000])
def test_nesting_is_no_recursion(depth):
    assert substitute("${e:-" * depth + "x" + "}" * depth, {"e": ""}, strict=True) == "x"
    with pytest.raises(SubstitutionError, match=r"^unable to parse substitution within function$"):
        substitute("${e:-" * depth, {}, strict=True)


def test_patterns_take_time_like_the_value():
    value = "ab" * 50_000
    for pattern in ("*a*a*a*a*a*a*a*c", "*?*?*?*?c", "[a-b]*[a-b]*c"):
        evaluator = Evaluator({"v": value}, strict=True)
        assert evaluator.text("${v##" + pattern + "}") == value
        assert evaluator.steps < 8 * len(value)


@pytest.mark.parametrize(
    "text",
    ["${big//a/${big}}", "${big}" * 40, "${e:-" + "${big}" * 40 + "}"],
    ids=["replaced", "repeated", "in a default"],
)
def test_what_would_grow_without_bound_is_refused(text):
    with pytest.raises(SubstitutionError, match="more than 33554432 characters"):
        substitute(text, {"big": "a" * 1_000_000, "e": ""}, strict=True)


def test_work_without_a_trace_is_refused_as_well(monkeypatch):
    monkeypatch.setattr(module, "MOST_STEPS", 1_000_000)
    with pytest.raises(SubstitutionError, match="too many steps"):
        substitute("${big#b*}" * 1000, {"big": "a" * 10_000}, strict=True)


def test_a_bomb_of_aliases_is_refused():
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"] + [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(goyaml.GoYamlError, match="excessive aliasing"):
        load("\n".join(lines) + "\n")


def test_what_nests_too_deeply_is_refused():
    obj = value = {}
    for _ in range(goyaml.MAX_DEPTH + 1):
        value["a"] = value = {}
    value["b"] = 1
    for more in ({}, {"c": "${v}"}):
        with pytest.raises(SubstitutionError, match="nested collections"):
            substitute_object({"x": obj, **more}, VARIABLES, strict=True)


def test_an_object_without_forms_is_neither_written_nor_read(monkeypatch):
    calls = []
    monkeypatch.setattr(goyaml, "dump", lambda value: calls.append(value))
    obj = {"kind": "X", "price": "5 $", "path": "$HOME $(pwd)", "count": 3.0, "half": 0.5, "$a": [None, True, "{}"]}
    result = substitute_object(obj, {"v": "1"}, strict=True)
    assert (result, calls) == (obj, [])
    assert isinstance(result["count"], int), "numbers lose their spelling as they do in YAML"


@pytest.mark.parametrize("place", ["annotations", "labels"])
def test_an_object_that_opts_out_is_left_alone(place):
    key = "kustomize.toolkit.fluxcd.io/substitute"
    post_build = PostBuild((), {"bad-name": "1"})
    obj = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x", place: {key: "disabled"}}, "a": "${v}"}
    assert post_build.object(obj) is obj


def test_large_patterns_are_counted():
    many = "".join(map(chr, range(0x4E00, 0x8E00)))
    for pattern in ("?" * 1_000_000, "*" * 1_000_000 + "z", "*[" + "a-b" * 300_000 + "]z"):
        with pytest.raises(SubstitutionError, match="too many steps"):
            substitute("${v##${p}}", {"v": many, "p": pattern}, strict=True)
