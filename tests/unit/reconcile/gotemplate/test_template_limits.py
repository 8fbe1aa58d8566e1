"""What a template may cost: each of these would take gigabytes or for ever in Go, and ends with an error here."""

import pytest

from reconcile.gotemplate import ExecError, Limits, Template

SMALL = Limits(output=1000, work=50_000, depth=10)

DOUBLING = '{{ $x := list "a" "b" }}' + "{{ $x = list $x $x $x $x }}" * 20


def execute(text: str, limits: Limits = SMALL) -> str:
    return Template.parse("t", text).execute({}, limits)


@pytest.mark.parametrize(
    "expression",
    [
        'repeat 1000000000 "x"',
        'repeat 40000 "x" | replace "x" "xxxxxxxx"',
        "untilStep 0 1000000000000 1",
        "until 1000000000",
        "seq 1 1000000000",
        "range 1000000000 }}{{ end",
        "range until 1000 }}{{ range until 1000 }}{{ end }}{{ end",
        'indent 100000 "x"',
        'printf "%100000d" 1',
        'printf "%.100000f" 1.0',
        'join (repeat 4000 "-") (until 4000)',
        'wrapWith 1 (repeat 9000 "-") (repeat 9000 "a")',
        'regexReplaceAll "" (repeat 9000 "a") (repeat 9000 "b")',
        "mulf " + " ".join(["1e300"] * 2000),
    ],
)
def test_work_is_bounded(expression):
    with pytest.raises(ExecError, match="needs more than the allowed 50000 units of work"):
        execute(
            "{{ $x := " + expression + " }}"
            if "range 1" not in expression and "range until" not in expression
            else "{{ " + expression + " }}"
        )


@pytest.mark.parametrize(
    "use", ["{{ $x }}", "{{ toJson $x }}", "{{ deepCopy $x | len }}", '{{ printf "%v" $x | len }}', "{{ has 1 (list $x $x) }}"]
)
def test_shared_lists_do_not_explode(use):
    with pytest.raises(ExecError, match="needs more than the allowed 50000 units of work"):
        execute(DOUBLING + use.replace("has 1", "eq (deepEqual $x (deepCopy $x)) true | has"))


def test_output_is_bounded_and_the_place_is_named():
    with pytest.raises(ExecError) as caught:
        execute("{{ range 2000 }}x{{ end }}")
    assert str(caught.value) == ('template: t:1:16: executing "t" at <x>: the output is longer than the allowed 1000 characters')


def test_templates_may_not_call_one_another_for_ever():
    with pytest.raises(ExecError) as caught:
        execute('{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}')
    assert str(caught.value) == 'template: t:1:28: executing "a" at <{{template "a"}}>: exceeded maximum template depth (10)'


def test_deep_recursion_is_an_error_and_not_a_crash():
    body = "{{ if true }}" * 50 + '{{ template "a" }}' + "{{ end }}" * 50
    with pytest.raises(ExecError, match=r"nested too deeply|exceeded maximum template depth"):
        execute(f'{{{{ define "a" }}}}{body}{{{{ end }}}}{{{{ template "a" }}}}', Limits())


def test_a_dictionary_cannot_hold_itself():
    with pytest.raises(ExecError, match="error calling set: a dictionary cannot hold itself"):
        execute('{{ $d := dict }}{{ $_ := set $d "x" (list $d) }}{{ $d }}')


def test_values_nested_too_deeply_are_an_error():
    with pytest.raises(ExecError, match="nested too deeply"):
        execute("{{ $x := list }}{{ range 3000 }}{{ $x = list $x }}{{ end }}{{ $x }}", Limits())


def test_an_ordinary_template_fits():
    assert execute("{{ range until 100 }}{{ . }}{{ end }}") == "".join(map(str, range(100)))
