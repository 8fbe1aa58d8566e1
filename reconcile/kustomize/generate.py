"""The kustomization file of a Kustomization: what is in the artifact, with what the spec adds to it. Pure.

An existing file is the base; without one every manifest in the folder is a resource. The file is written as JSON, which is YAML.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from reconcile.api.appliers import Image, Patch
from reconcile.api.kustomization import KustomizationSpec
from reconcile.kustomize.documents import load_all
from reconcile.kustomize.failure import BuildFailed
from reconcile.kustomize.reach import walk
from reconcile.kustomize.references import MOST_BYTES, decoded, in_words_of_go
from reconcile.kustomize.schema import fitted
from reconcile.kustomize.tree import FILE_NAMES, Tree, joined
from reconcile.yamlio import YamlError

_REMOTE: Final = ("git::", "gh:", "ssh://", "http://", "https://", "git@", "github.com")
_UNPRINTABLE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_NOTHING: Final = "_placeholder"


@dataclass(frozen=True, slots=True)
class Generated:
    """The kustomization file to build with.

    Attributes:
        path: where it goes, relative to the artifact's root.
        content: its bytes.
        manifests: the manifests it lists, relative to the artifact's root, when there was no file before.
    """

    path: str
    content: bytes
    manifests: frozenset[str] | None = None


def generate(tree: Tree, path: str, spec: KustomizationSpec) -> Generated:
    """The kustomization file for a build of the folder `path` of the artifact, as `spec` wants it.

    Raises:
        BuildFailed: `path` is a file, its kustomization file is no YAML, or a component is not local.
    """
    if path in tree.files:
        place = f"{path}/{FILE_NAMES[0]}"
        raise BuildFailed(f"open {place}: not a directory remove {place}: not a directory")
    present = tree.kustomizations(path)
    if not present:
        data, manifests = _listing(tree, path)
        return Generated(posixpath.join(path, FILE_NAMES[0]), _written(_with_spec(tree, path, data, spec)), manifests)
    try:
        documents = load_all(decoded(tree.content(present[0], MOST_BYTES)))
    except YamlError as error:
        raise BuildFailed(f"error converting YAML to JSON: {in_words_of_go(error)} in File: {present[0]}") from None
    data = fitted((documents[0] if documents else None) or {})
    if not isinstance(data, dict):
        raise BuildFailed(f"error unmarshaling JSON: while decoding JSON: {present[0]} is no mapping")
    data = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **data}
    if not data.get("resources"):
        data["buildMetadata"] = ["originAnnotations"]  # else kustomize calls an overlay empty that only has generators
    return Generated(present[0], _written(_with_spec(tree, path, data, spec)))


def _listing(tree: Tree, path: str) -> tuple[dict[str, Any], frozenset[str]]:
    found = list(walk(tree, path))
    data: dict[str, Any] = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    if found:
        data["resources"] = [f"./{place.removeprefix(f'{path}/')}" for place, _ in found]
    else:
        data["namespace"] = _NOTHING
    return data, frozenset(place for place, is_folder in found if not is_folder)


def _with_spec(tree: Tree, path: str, data: dict[str, Any], spec: KustomizationSpec) -> dict[str, Any]:
    names = {"namespace": spec.target_namespace, "namePrefix": spec.name_prefix, "nameSuffix": spec.name_suffix}
    data |= {field: value for field, value in names.items() if value}
    _append(data, "patches", (_patch(one) for one in spec.all_patches()))
    _append(data, "components", _components(tree, path, spec))
    if spec.images:
        data["images"] = _images(data.get("images"), spec.images)
    if spec.build_metadata:
        data["buildMetadata"] = list(spec.build_metadata)
    return data


def _append(data: dict[str, Any], field: str, items: Iterable[Any]) -> None:
    more = list(items)
    present = data.get(field)
    if more and (present is None or isinstance(present, list)):
        data[field] = [*(present or ()), *more]


def _patch(patch: Patch) -> dict[str, Any]:
    return patch.model_dump(by_alias=True, exclude_none=True)


def _components(tree: Tree, path: str, spec: KustomizationSpec) -> list[str]:
    wanted: list[str] = []
    for component in spec.components or ():
        if component.startswith(("/", *_REMOTE)):
            raise BuildFailed(f"component path '{component}' must be local and relative")
        place = joined(path, component)
        missing = place is None or not (place in tree.files or tree.is_folder(place))
        if not (missing and spec.ignore_missing_components):
            wanted.append(component)
    return wanted


def _images(present: Any, wanted: list[Image]) -> Any:
    """The file's images with those of the spec, merged by name: a new name wins, tag and digest are replaced together."""
    if present is not None and not isinstance(present, list):
        return present
    images = [dict(image) if isinstance(image, dict) else image for image in present or ()]
    for image in wanted:
        found = next((one for one in images if isinstance(one, dict) and one.get("name") == image.name), None)
        if found is None:
            images.append(image.model_dump(by_alias=True, exclude_none=True))
            continue
        if image.new_name:
            found["newName"] = image.new_name
        if image.new_tag or image.digest:
            found["newTag"], found["digest"] = image.new_tag or "", image.digest or ""
    return images


def _written(data: dict[str, Any]) -> bytes:
    """JSON that YAML parsers take: characters that YAML calls unprintable are escaped, and no pairs of surrogates are written."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=str)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()
