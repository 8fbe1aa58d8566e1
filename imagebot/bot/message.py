"""Commit messages: a user's Go template over what an update changed. Pure.

Same data and functions as Flux's message templates, and the `.Updated` of older versions, which Flux now refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from imagebot.markers.changes import Change, Changed, ObjectIdentity
from reconcile.errors import ReconcileError, Stalled
from reconcile.gotemplate import ExecError, ParseError, Template
from reconcile.gotemplate.values import STRING, STRING_MAP, Field, Map, Slice, Struct, Type, map_of, slice_of

DEFAULT_MESSAGE: Final = "Update from image update automation"

_TEMPLATE_NAME: Final = "commit message"
_LINK: Final = "https://fluxcd.io/flux/components/image/imageupdateautomations/#message-template"
_DEFAULT_REGISTRY: Final = "index.docker.io"


class MessageError(ReconcileError):
    """A template cannot be parsed or executed; `str()` is what follows `failed to update source: ` in the status."""


class RemovedField(Stalled):
    """A template uses a field that was removed for good; reason `RemovedTemplateField`."""

    def __init__(self, name: str, instead: str) -> None:
        super().__init__(
            "RemovedTemplateField", f"template uses removed '{name}' field. Please use {instead} instead. See: {_LINK}"
        )


def _named(value: Struct) -> str:
    return f"{value.values[0]}/{value.values[1]}"


_NAMESPACED: Final = Type(
    "types.NamespacedName", "struct", fields=(Field("Namespace", STRING), Field("Name", STRING)), methods={"String": _named}
)
_TYPE_META: Final = Type(
    "yaml.TypeMeta",
    "struct",
    fields=(Field("APIVersion", STRING, "apiVersion", omitempty=True), Field("Kind", STRING, "kind", omitempty=True)),
)
_NAME_META: Final = Type(
    "yaml.NameMeta",
    "struct",
    fields=(Field("Name", STRING, "name", omitempty=True), Field("Namespace", STRING, "namespace", omitempty=True)),
)
_RESOURCE: Final = Type(
    "yaml.ResourceIdentifier",
    "struct",
    fields=(Field("TypeMeta", _TYPE_META, embedded=True), Field("NameMeta", _NAME_META, embedded=True)),
)
_OBJECT: Final = Type("update.ObjectIdentifier", "struct", fields=(Field("ResourceIdentifier", _RESOURCE, embedded=True),))
_CHANGE: Final = Type(
    "update.Change", "struct", fields=(Field("OldValue", STRING), Field("NewValue", STRING), Field("Setter", STRING))
)
_CHANGES: Final = slice_of(_CHANGE)
_PLAIN_OBJECT_CHANGES: Final = map_of(_OBJECT, _CHANGES)
_OBJECT_CHANGES: Final = Type("update.ObjectChanges", "map", elem=_CHANGES, key=_OBJECT, underlying=_PLAIN_OBJECT_CHANGES)
_FILE_CHANGES: Final = map_of(STRING, _OBJECT_CHANGES)


def _part(place: int) -> Field:
    return Field(("registry", "repository", "identifier", "policy", "text", "full")[place], _NAMESPACED if place == 3 else STRING)


_IMAGE: Final = Type(
    "update.imageRef",
    "struct",
    fields=tuple(map(_part, range(6))),
    methods={
        "Registry": lambda value: value.values[0],
        "Repository": lambda value: value.values[1],
        "Identifier": lambda value: value.values[2],
        "Policy": lambda value: value.values[3],
        "String": lambda value: value.values[4],
        "Name": lambda value: value.values[5],
    },
)
_IMAGES: Final = slice_of(_IMAGE)
_OBJECT_IMAGES: Final = map_of(_OBJECT, _IMAGES)
_FILE_IMAGES: Final = Type("update.FileResult", "struct", fields=(Field("Objects", _OBJECT_IMAGES),))


def validate_template(template: str) -> str | None:
    """Go's complaint about a message template that cannot be parsed; None when it can."""
    try:
        Template.parse(_TEMPLATE_NAME, template)
    except ParseError as error:
        return str(error)
    return None


def render_message(
    template: str,
    values: Mapping[str, str],
    namespace: str,
    name: str,
    changed: Changed,
    refs: Mapping[str, str] | None = None,
) -> str:
    """The commit message of an update, exactly as the template gives it.

    Args:
        template: `spec.git.commit.messageTemplate`; the default message stands for an empty one.
        values: `spec.git.commit.messageTemplateValues`.
        namespace: Where the automation lives.
        name: Its name.
        changed: What was changed.
        refs: For `.Updated`: the full reference (`name:tag[@digest]`) of each policy (`namespace:policy`). A change whose policy
            is not there counts with its new value.

    Raises:
        MessageError: the template cannot be parsed or executed.
        RemovedField: it uses `.Changed.ImageResult`.
    """
    if not template:
        return DEFAULT_MESSAGE
    try:
        parsed = Template.parse(_TEMPLATE_NAME, template)
    except ParseError as error:
        raise MessageError(f"unable to create commit message template from spec: {error}") from None
    try:
        text = parsed.execute(_data(values, namespace, name, changed, refs or {}))
    except ExecError as error:
        if "can't evaluate field ImageResult in type update.Result" in str(error):
            raise RemovedField(".Changed.ImageResult", "'.Changed.FileChanges' or '.Changed.Objects'") from None
        raise MessageError(f"failed to run template from spec: {error}") from None
    # A function that counts bytes may have cut a character in two; messages are text.
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _data(values: Mapping[str, str], namespace: str, name: str, changed: Changed, refs: Mapping[str, str]) -> Struct:
    result = Type(
        "update.Result",
        "struct",
        fields=(Field("FileChanges", _FILE_CHANGES),),
        methods={"Objects": lambda _: _objects(changed.objects()), "Changes": lambda _: _changes(changed.changes())},
    )
    # A method, so that printing the data as a whole shows what Flux shows.
    data = Type(
        "source.TemplateData",
        "struct",
        fields=(Field("AutomationObject", _NAMESPACED), Field("Changed", result), Field("Values", STRING_MAP)),
        methods={"Updated": lambda _: _updated(changed, refs)},
    )
    files = Map(_FILE_CHANGES, {path: _objects(objects) for path, objects in changed.file_changes().items()})
    automation = Struct(_NAMESPACED, (namespace, name))
    return Struct(data, (automation, Struct(result, (files,)), Map(STRING_MAP, dict(values.items()))))


def _object(identity: ObjectIdentity) -> Struct:
    kind = Struct(_TYPE_META, (identity.api_version, identity.kind))
    called = Struct(_NAME_META, (identity.name, identity.namespace))
    return Struct(_OBJECT, (Struct(_RESOURCE, (kind, called)),))


def _changes(changes: Iterable[Change]) -> Slice:
    return Slice(_CHANGES, tuple(Struct(_CHANGE, (each.old_value, each.new_value, each.setter)) for each in changes))


def _objects(objects: Mapping[ObjectIdentity, Iterable[Change]]) -> Map:
    return Map(_OBJECT_CHANGES, {_object(identity): _changes(changes) for identity, changes in objects.items()})


def _updated(changed: Changed, refs: Mapping[str, str]) -> Struct:
    """The data that message templates had before `.Changed`."""

    def images(changes: Iterable[Change]) -> Slice:
        return Slice(_IMAGES, tuple(dict.fromkeys(_image(change, refs) for change in changes)))

    def by_object(objects: Mapping[ObjectIdentity, Iterable[Change]]) -> Map:
        return Map(_OBJECT_IMAGES, {_object(identity): images(changes) for identity, changes in objects.items()})

    updated = Type(
        "update.Result",
        "struct",
        fields=(Field("Files", map_of(STRING, _FILE_IMAGES)),),
        methods={"Objects": lambda _: by_object(changed.objects()), "Images": lambda _: images(changed.changes())},
    )
    files = {path: Struct(_FILE_IMAGES, (by_object(objects),)) for path, objects in changed.file_changes().items()}
    return Struct(updated, (Map(map_of(STRING, _FILE_IMAGES), dict(files.items())),))


def _image(change: Change, refs: Mapping[str, str]) -> Struct:
    """The image that a change sets, whichever part of it the marker writes."""
    namespace, _, rest = change.setter.partition(":")
    policy = rest.partition(":")[0]
    text = refs.get(f"{namespace}:{policy}", change.new_value)
    plain, _, digest = text.partition("@")
    path, colon, tag = plain.rpartition(":")
    if not colon or "/" in tag:
        path, tag = plain, "latest"
    registry, slash, repository = path.partition("/")
    if not slash or not (registry == "localhost" or any(char in ".:" for char in registry)):
        registry, repository = _DEFAULT_REGISTRY, path if slash else f"library/{path}"
    identifier = digest or tag
    full = f"{registry}/{repository}{'@' if digest else ':'}{identifier}"
    return Struct(_IMAGE, (registry, repository, identifier, Struct(_NAMESPACED, (namespace, policy)), text, full))
