"""Flags of sources and Kustomizations, spelled and valued as those of Flux's source-controller and kustomize-controller."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from reconcile.api.selectors import parse_selector
from reconcile.cli.flags import apply, duration, go_bool
from reconcile.errors import Invalid
from reconcile.settings import ApplySettings, StorageSettings

Command = TypeVar("Command", bound=Callable[..., Any])

DIGESTS = ("sha256", "sha384", "sha512", "sha1", "blake3")

_ENVIRONMENT_ADDRESS = "STORAGE_ADV_ADDR"
_ACCEPTED = "Accepted from upstream's deployments, without effect."


def storage_options(command: Command) -> Command:
    """Where artifacts are served and how long they stay."""
    defaults = StorageSettings()
    return apply(
        command,
        click.option("--storage-addr", default=":9090", show_default=True, help="Where artifacts are served; 0 for nowhere."),
        click.option("--storage-adv-addr", default="", metavar="HOST:PORT", help="Under which address others fetch artifacts."),
        duration("--artifact-retention-ttl", defaults.retention_ttl, "How long an artifact that was replaced may be fetched."),
        click.option(
            "--artifact-retention-records",
            type=click.IntRange(1, 1000),
            default=defaults.retention_records,
            show_default=True,
            help="Artifacts of one source that are kept.",
        ),
        click.option(
            "--artifact-digest-algo", type=click.Choice(DIGESTS), default=defaults.digest, show_default=True, help="Digests."
        ),
        click.option(
            "--helm-index-max-size",
            type=click.IntRange(1),
            default=defaults.helm_index,
            show_default=True,
            help="Bytes of the index of a chart repository.",
        ),
        click.option(
            "--interval-jitter-percentage",
            type=click.IntRange(0, 99),
            default=round(100 * defaults.jitter),
            show_default=True,
            help="Part of an interval by which it varies.",
        ),
    )


def apply_options(command: Command) -> Command:
    """How Kustomizations are applied, and as whom."""
    defaults = ApplySettings()
    return apply(
        command,
        click.option("--default-service-account", default="", metavar="NAME", help="In whose name is applied; empty: our own."),
        go_bool("--no-remote-bases", False, "Accepted from upstream: builds never use the network.", expose_value=False),
        go_bool("--insecure-kubeconfig-exec", False, "Let kubeconfigs from Secrets run programs to log in."),
        go_bool("--insecure-kubeconfig-tls", False, "Let kubeconfigs from Secrets switch the check of certificates off."),
        click.option("--override-manager", multiple=True, metavar="NAME", help="Field managers to take over; may be repeated."),
        click.option(
            "--concurrent-ssa", type=click.IntRange(1, 64), default=defaults.concurrent, show_default=True, help="At once."
        ),
        click.option("--custom-apply-stage-kinds", default="", metavar="GROUP/KIND,...", help="Kinds applied before the others."),
        click.option("--sops-age-secret", default="", metavar="NAME", help="Secret in our namespace with age identities."),
        click.option(
            "--watch-configs-label-selector",
            default=defaults.watch_configs,
            show_default=True,
            help="ConfigMaps and Secrets whose change wakes who reads them.",
        ),
        click.option("--http-retry", type=click.IntRange(0, 100), default=defaults.http_retry, show_default=True, help="Tries."),
        *(
            click.option(name, expose_value=False, hidden=True, help=_ACCEPTED)
            for name in ("--default-kubeconfig-service-account", "--sops-vault-configmap", "--default-decryption-service-account")
        ),
    )  # fmt: skip


def storage_settings(options: Mapping[str, Any]) -> StorageSettings:
    """The settings that these options stand for."""
    defaults = StorageSettings()
    address = options.get("storage_addr", "")
    return StorageSettings(
        address="" if address == "0" else address,
        advertised=options.get("storage_adv_addr") or os.environ.get(_ENVIRONMENT_ADDRESS, ""),
        retention_ttl=options.get("artifact_retention_ttl", defaults.retention_ttl),
        retention_records=options.get("artifact_retention_records", defaults.retention_records),
        digest=options.get("artifact_digest_algo", defaults.digest),
        helm_index=options.get("helm_index_max_size", defaults.helm_index),
        jitter=options.get("interval_jitter_percentage", 100 * defaults.jitter) / 100,
    )


def apply_settings(options: Mapping[str, Any], namespace: str = "") -> ApplySettings:
    """The settings that these options stand for; raises Invalid for a kind or selector that is none."""
    if "concurrent_ssa" not in options:
        return ApplySettings(own_namespace=namespace)
    stages = tuple(part.strip() for part in options["custom_apply_stage_kinds"].split(",") if part.strip())
    for stage in stages:
        if stage.count("/") != 1 or not stage.partition("/")[2]:
            raise Invalid(f"--custom-apply-stage-kinds: {stage!r} is not GROUP/KIND")
    parse_selector(options["watch_configs_label_selector"])
    return ApplySettings(
        default_service_account=options["default_service_account"],
        insecure_kubeconfig_exec=options["insecure_kubeconfig_exec"],
        insecure_kubeconfig_tls=options["insecure_kubeconfig_tls"],
        override_managers=tuple(options["override_manager"]),
        concurrent=options["concurrent_ssa"],
        custom_stages=stages,
        sops_age_secret=options["sops_age_secret"],
        watch_configs=options["watch_configs_label_selector"],
        own_namespace=namespace,
        http_retry=options["http_retry"],
    )
