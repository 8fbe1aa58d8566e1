"""The error of a build."""

from __future__ import annotations

from reconcile.errors import NotFound, ReconcileError


class BuildFailed(ReconcileError):
    """Manifests could not be built; the message is what Flux's kustomize-controller puts into the condition `BuildFailed`."""


class PathNotFound(NotFound):
    """The path of a Kustomization is not in its artifact."""
