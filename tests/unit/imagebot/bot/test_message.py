"""Commit messages: the default, the data of older versions, and what cannot be used any more."""

import pytest

from imagebot.bot.message import MessageError, RemovedField, render_message, validate_template
from imagebot.markers.changes import Change, Changed, FileChange, ObjectIdentity

WEB = ObjectIdentity("apps/v1", "Deployment", "web", "prod")
REFS = {"apps:web": "ghcr.io/acme/web:1.2.0", "apps:pin": f"redis:7@sha256:{'a' * 64}", "apps:short": "localhost:5000/a/b"}
CHANGED = Changed(
    {
        "a.yaml": (
            FileChange(WEB, Change("ghcr.io/acme/web:1.0.0", "ghcr.io/acme/web:1.2.0", "apps:web"), 1),
            FileChange(WEB, Change("1.0.0", "1.2.0", "apps:web:tag"), 2),
            FileChange(WEB, Change("6", "7", "apps:pin:tag"), 3),
        ),
        "b.yaml": (FileChange(ObjectIdentity(), Change("x", "localhost:5000/a/b", "apps:short"), 1),),
    }
)


def render(template: str, changed: Changed = CHANGED, refs: dict[str, str] | None = REFS) -> str:
    return render_message(template, {}, "apps", "upd", changed, refs)


def test_empty_template_is_the_default_message():
    assert render("") == "Update from image update automation"
    assert render("\n") == "\n"


def test_updated_images_of_older_versions_are_unique_and_full():
    assert render("{{ range .Updated.Images }}{{ . }}\n{{ end }}").split() == [
        "ghcr.io/acme/web:1.2.0",
        REFS["apps:pin"],
        "localhost:5000/a/b",
    ]


def test_parts_of_an_updated_image():
    names = ("String", "Name", "Registry", "Repository", "Identifier", "Policy")
    parts = f"{{{{ range .Updated.Images }}}}{' '.join(f'{{{{ .{name} }}}}' for name in names)}\n{{{{ end }}}}"
    digest = f"sha256:{'a' * 64}"
    assert render(parts).splitlines() == [
        "ghcr.io/acme/web:1.2.0 ghcr.io/acme/web:1.2.0 ghcr.io acme/web 1.2.0 apps/web",
        f"redis:7@{digest} index.docker.io/library/redis@{digest} index.docker.io library/redis {digest} apps/pin",
        "localhost:5000/a/b localhost:5000/a/b:latest localhost:5000 a/b latest apps/short",
    ]


def test_updated_files_and_objects():
    objects = "{{ range $o, $i := $r.Objects }}{{ $o.Kind }}{{ $i | len }}{{ end }}"
    assert render("{{ range $f, $r := .Updated.Files }}{{ $f }}:" + objects + ";{{ end }}") == "a.yaml:Deployment2;b.yaml:1;"
    assert render("{{ range $o, $i := .Updated.Objects }}{{ $o.Name }}={{ $i }};{{ end }}") == (
        f"=[localhost:5000/a/b];web=[ghcr.io/acme/web:1.2.0 {REFS['apps:pin']}];"
    )


def test_without_refs_the_new_value_is_shown():
    assert (
        render("{{ range .Updated.Images }}{{ . }} {{ end }}", refs=None) == "ghcr.io/acme/web:1.2.0 1.2.0 7 localhost:5000/a/b "
    )


def test_the_data_as_a_whole_is_what_flux_shows():
    assert render("{{ . }}", Changed()) == "{apps/upd {map[]} map[]}"
    with pytest.raises(MessageError, match=r"can't evaluate field Nope in type source\.TemplateData"):
        render("{{ .Nope }}")


def test_image_result_was_removed():
    with pytest.raises(RemovedField) as caught:
        render("{{ .Changed.ImageResult }}")
    assert caught.value.reason == "RemovedTemplateField"
    assert str(caught.value) == (
        "template uses removed '.Changed.ImageResult' field. Please use '.Changed.FileChanges' or '.Changed.Objects' instead."
        " See: https://fluxcd.io/flux/components/image/imageupdateautomations/#message-template"
    )


def test_half_a_character_becomes_text():
    message = render('{{ trunc 1 "é" }}')
    assert message == "�"
    assert message.encode()


def test_validation_only_parses():
    assert validate_template("{{ .Nope }}") is None
    assert validate_template("{{ if }}") == "template: commit message:1: missing value for if"
