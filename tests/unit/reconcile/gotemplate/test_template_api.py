"""The template engine as the rest of the program uses it: own functions, plain Python data, names in errors."""

import pytest

from reconcile.gotemplate import CallError, ExecError, ParseError, Template, TemplateError


def test_plain_python_data():
    data = {"name": "web", "ports": [80, 443], "labels": {"b": "2", "a": "1"}, "none": None, "on": True, "share": 0.5}
    text = "{{ .name }} {{ .ports }} {{ .labels }} {{ .none }} {{ .on }} {{ .share }} {{ .missing }}"
    assert Template.parse("t", text).execute(data) == "web [80 443] map[a:1 b:2] <no value> true 0.5 <no value>"


def test_own_functions_take_and_check_typed_arguments():
    def namespace() -> str:
        return "prod"

    def seconds(value: int, *units: str) -> str:
        if value < 0:
            raise CallError("time runs forward")
        return f"{value}{''.join(units)}"

    functions = {"namespace": namespace, "seconds": seconds}
    assert Template.parse("t", '{{ namespace }} {{ seconds 5 "s" }}', functions).execute({}) == "prod 5s"
    for text, complaint in [
        ("{{ namespace 1 }}", "wrong number of args for namespace: want 0 got 1"),
        ('{{ seconds "5" }}', 'expected integer; found "5"'),
        ("{{ seconds -1 }}", "error calling seconds: time runs forward"),
    ]:
        with pytest.raises(ExecError) as caught:
            Template.parse("t", text, functions).execute({})
        assert str(caught.value).endswith(complaint)


def test_own_functions_replace_sprig():
    with pytest.raises(ParseError) as caught:
        Template.parse("query", "a\n{{ upper .x }}", {})
    assert str(caught.value) == 'template: query:2: function "upper" not defined'


def test_a_function_without_types_is_refused():
    with pytest.raises(TypeError, match="has no Go type"):
        Template.parse("t", "", {"f": lambda value: value})


def test_a_template_is_reusable_and_keeps_nothing():
    template = Template.parse("t", "{{ $n := 1 }}{{ if .x }}{{ $n = .x }}{{ end }}{{ $n }}")
    assert [template.execute({"x": 5}), template.execute({}), template.execute({"x": 7})] == ["5", "1", "7"]


@pytest.mark.parametrize("text", ["{{" + "(" * 100 + "1" + ")" * 100 + "}}", "{{ if 1 }}" * 100 + "{{ end }}" * 100])
def test_nesting_is_bounded(text):
    with pytest.raises(ParseError, match="max expression depth exceeded"):
        Template.parse("t", text)


def test_column_counts_bytes():
    with pytest.raises(TemplateError) as caught:
        Template.parse("t", "é☃{{ upper 1 }}").execute({})
    assert str(caught.value) == 'template: t:1:14: executing "t" at <1>: expected string; found 1'


def test_data_given_to_a_template_stays_as_it_was():
    data = {"d": {"a": 1}}
    assert Template.parse("t", '{{ set .d "b" 2 }}').execute(data) == "map[a:1 b:2]"
    assert data == {"d": {"a": 1}}


def test_split_characters_join_again():
    assert Template.parse("t", '{{ trunc 1 "é" }}{{ "é" | trunc -1 }}').execute({}) == "é"
