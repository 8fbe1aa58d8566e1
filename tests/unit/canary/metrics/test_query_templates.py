"""Query templates: values, Go's syntax, errors in Flagger's and Go's words."""

from __future__ import annotations

import pytest

from canary.metrics.builtin import collapse
from canary.metrics.template import Model, RenderError, render

MODEL = Model("app", "prod", "web", "web-svc", "web-ing", "web-route", "2m", {"job": "web-job", "a-b": "dashed"})


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{{ name }}/{{namespace}}/{{target}}/{{ service }}/{{ ingress }}/{{ route }}/{{ interval }}",
         "app/prod/web/web-svc/web-ing/web-route/2m"),
        ("{{ variables.job }}", "web-job"),
        ('{{ index variables "a-b" }}', "dashed"),
        ('{{ index variables "none" }}', ""),
        ('x  {{- /* said */ -}}  {{ if eq namespace "prod" }}p{{ else }}q{{ end }}', "xp"),
        ('{{ $t := target }}{{ printf "%s-%d" $t 7 | printf "%q" }}', '"web-7"'),
        ("{{ range $k, $v := variables }}{{ $k }}={{ $v }};{{ end }}", "a-b=dashed;job=web-job;"),
    ],
)  # fmt: skip
def test_rendering(text: str, result: str) -> None:
    assert render(text, MODEL) == result


def test_the_templates_of_the_recorded_story() -> None:
    errors = 'sum(errors{namespace="{{ namespace }}", job="{{ variables.job }}", target="{{ target }}"}[{{ interval }}])'
    saturation = "avg(sat{ns='{{ namespace }}', svc='{{ service }}', ing='{{ ingress }}'})\n  > bool 0"
    model = Model("web", "st-metric-template", "web", "web", "web", "web", "2m", {"job": "web-job"})
    assert [collapse(render(text, model)) for text in (errors, saturation)] == [
        'sum(errors{namespace="st-metric-template", job="web-job", target="web"}[2m])',
        "avg(sat{ns='st-metric-template', svc='web', ing='web'}) > bool 0",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{ variables.k }}",
         'excution failed: template: tmpl:1:3: executing "tmpl" at <variables>: map has no entry for key "k"'),
        ("a\n {{ variables.k }}",
         'excution failed: template: tmpl:2:4: executing "tmpl" at <variables>: map has no entry for key "k"'),
        ('{{ printf "%s" variables.q }}',
         'excution failed: template: tmpl:1:15: executing "tmpl" at <variables>: map has no entry for key "q"'),
        ("{{ upper name }}", 'parsing failed: template: tmpl:1: function "upper" not defined'),
        ("{{ if }}", "parsing failed: template: tmpl:1: missing value for if"),
    ],
)  # fmt: skip
def test_errors(text: str, error: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(text, MODEL)
    assert str(caught.value) == f"template {error}"


def test_a_missing_variable_is_an_error_without_any_variables() -> None:
    with pytest.raises(RenderError, match='map has no entry for key "job"'):
        render("{{ variables.job }}", Model("a", "b", "c", "d", "e", "f", "1m"))


def test_what_a_template_makes_is_bounded() -> None:
    with pytest.raises(RenderError, match="exceeded maximum template depth"):
        render('{{ define "t" }}{{ template "t" }}{{ end }}{{ template "t" }}', MODEL)
    with pytest.raises(RenderError, match="longer than the allowed"):
        render("{{ range $k, $v := variables }}" + "x" * 70_000 + "{{ end }}", MODEL)


def test_one_text_serves_many_models() -> None:
    text = "{{ name }}{{ variables.x }}"
    models = [Model(f"c{n}", "ns", "t", "s", "i", "r", "1m", {"x": str(n)}) for n in range(3)]
    assert [render(text, model) for model in models] == ["c00", "c11", "c22"]
