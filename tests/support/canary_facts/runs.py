"""Stories of runs: strategies, metrics, webhooks, edits in mid-run, configuration, deletion, alerts."""

from __future__ import annotations

from tests.support.canary_facts.acts import promoted, start, story, succeed
from tests.support.canary_facts.manifests import (
    BOTH,
    CONFIGURED,
    COOKIE_MATCH,
    INGRESS,
    alert_provider,
    canary,
    config_map,
    configs,
    deployment,
    ingress,
    named,
    scaled_object,
    secret,
    service,
    template,
    virtual_service,
)
from tests.support.canary_facts.recorder import Story
from tests.support.clusterlab import until
from tests.support.kubeapi import Object

# --- initialization


@story
def init_other_label(s: Story) -> None:
    """Selector label from the list, label value unlike the name, extra match label, affinity and spread rewriting."""
    spread = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"name": "web"}},
    }
    selector = {"matchExpressions": [{"key": "name", "operator": "In", "values": ["web", "other"]}]}
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}
    preferred = [{"weight": 1, "podAffinityTerm": term}]
    affinity = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    labels = {"name": "frontend", "tier": "1"}
    metadata = {"labels": labels, "annotations": {"example.org/t": "1", "flagger-id": "mine"}}
    pod = {"topologySpreadConstraints": [spread], "affinity": affinity}
    start(s, deployment(labels=labels, pod=pod, template=metadata), canary())


@story
def init_no_selector_label(s: Story) -> None:
    s.apply(deployment(labels={"component": "web"}), canary())
    s.event("must contain one of", 2)


@story
def init_missing_target(s: Story) -> None:
    s.apply(canary())
    s.event("get query error", 2)
    s.apply(deployment())
    s.initialized()


@story
def init_missing_config(s: Story) -> None:
    s.apply(deployment(container={"envFrom": [{"configMapRef": {"name": "settings"}}]}), canary())
    s.event("settings", 2)
    s.apply(config_map("settings", a="1"))
    s.initialized()


@story
def init_primary_not_ready(s: Story) -> None:
    """Pods of the primary never start, for want of quota: the deadline passes during initialization."""

    def both_run() -> bool:
        return bool(s.api.get("apps/v1", "Deployment", "web", s.ns).get("status", {}).get("availableReplicas") == 2)

    s.apply({**named("v1", "ResourceQuota", "pods"), "spec": {"hard": {"pods": "2"}}})
    s.apply(deployment(template={"annotations": {"bench/hold-primary": "true"}}, progressDeadlineSeconds=12))
    until(both_run, "the pods of the target", 100)
    s.apply(canary(spec={"progressDeadlineSeconds": 12}))
    s.until(lambda: s.posted("exceeded its progress deadline") > 1 or s.now["phase"] == "Failed", "the deadline")


# --- canary strategy


@story
def step_weights_overflow(s: Story) -> None:
    start(s, deployment(), canary(stepWeights=[10, 80, 200], metrics=[]))
    succeed(s)


@story
def step_promotion(s: Story) -> None:
    start(s, deployment(), canary(stepWeight=50, maxWeight=50, stepWeightPromotion=20, metrics=BOTH))
    succeed(s)


@story
def match_without_iterations(s: Story) -> None:
    start(s, deployment(), canary(stepWeight=50, maxWeight=50, match=COOKIE_MATCH))
    succeed(s)


@story
def mirror_unsupported(s: Story) -> None:
    """Mirroring with a provider that cannot."""
    s.apply(deployment(), ingress(), canary("nginx", spec=INGRESS, stepWeight=50, maxWeight=50, mirror=True))
    s.until(lambda: s.now["phase"] == "Initialized" or s.posted("is not valid"), "initialized or refused")
    if not s.posted("is not valid"):
        s.release()
        s.event("Starting canary analysis", 3)


@story
def affinity_primary_istio(s: Story) -> None:
    affinity = {"cookieName": "sticky", "primaryCookieName": "base"}
    match = {"match": [{"uri": {"prefix": "/api"}}]}
    start(s, deployment(), canary(stepWeight=30, maxWeight=60, service=match, sessionAffinity=affinity))
    succeed(s)


# --- A/B testing, Blue/Green


@story
def ab_istio(s: Story) -> None:
    start(s, deployment(), canary(iterations=2, match=COOKIE_MATCH, metrics=BOTH))
    succeed(s)


@story
def ab_rollback(s: Story) -> None:
    start(s, deployment(), canary(iterations=5, threshold=1, match=COOKIE_MATCH, metrics=BOTH))
    s.release()
    s.event("iteration 2/5")
    s.metric(success=90)
    s.phase("Failed")


@story
def ab_kubernetes(s: Story) -> None:
    start(s, deployment(), canary("kubernetes", iterations=1, match=COOKIE_MATCH, metrics=BOTH))
    succeed(s)


@story
def bluegreen_istio(s: Story) -> None:
    start(s, deployment(), canary(iterations=2, metrics=BOTH))
    succeed(s)


@story
def bluegreen_mirror(s: Story) -> None:
    start(s, deployment(), canary(iterations=2, mirror=True, metrics=BOTH))
    succeed(s)


@story
def progressive_kubernetes(s: Story) -> None:
    """Weights with provider kubernetes become ten iterations; three of them are watched."""
    start(s, deployment(), canary("kubernetes", metrics=BOTH))
    s.release()
    s.event("iteration 3/10")


# --- metrics


@story
def rollback_success_rate(s: Story) -> None:
    start(s, deployment(), canary(threshold=2, metrics=BOTH))
    s.release()
    s.weight(20)
    s.metric(success=97.2)
    s.phase("Failed")
    s.event("Canary failed!")


@story
def recover_after_failed_checks(s: Story) -> None:
    """Failures below the threshold halt the run, then it goes on; the counter stays."""
    start(s, deployment(), canary(threshold=3, metrics=BOTH))
    s.release()
    s.weight(20)
    s.metric(success=10.0)
    s.event("Halt", 2)
    s.metric(success=99.0)
    promoted(s)


@story
def old_thresholds(s: Story) -> None:
    """`threshold` instead of `thresholdRange`, and a query in the Canary."""
    cpu = {"name": "cpu", "threshold": 5, "query": 'avg(cpu{ns="{{ namespace }}",pod=~"{{ target }}-.*"}[{{ interval }}])'}
    success = {"name": "request-success-rate", "threshold": 99, "interval": "1m"}
    start(s, deployment(), canary(threshold=10, metrics=[success, {"name": "request-duration", "threshold": 500}, cpu]))
    s.release()
    s.weight(20)
    s.metric(custom=7.126)
    s.event("Halt", 1)
    s.metric(custom="empty")
    s.event("Halt", 2)
    s.metric(custom="error500")
    s.until(lambda: s.now["failedChecks"] >= 3, "third failure")
    s.metric(custom=5.0)
    promoted(s)


@story
def metric_template(s: Story) -> None:
    query = 'sum(errors{namespace="{{ namespace }}", job="{{ variables.job }}", target="{{ target }}"}[{{ interval }}])'
    saturation = "avg(sat{ns='{{ namespace }}', svc='{{ service }}', ing='{{ ingress }}'})\n  > bool 0"
    s.apply(
        template(s, "errors", query),
        secret("token", token="s3cret"),
        template(s, "saturation", saturation, headers={"X-Scope-OrgID": ["tenant"]}, secretRef={"name": "token"}),
    )
    errors: Object = {"name": "errors", "interval": "2m", "templateRef": {"name": "errors"}, "thresholdRange": {"max": 1.5}}
    errors["templateVariables"] = {"job": "web-job"}
    other: Object = {"name": "saturation", "interval": "1m", "thresholdRange": {"min": 0.5, "max": 90}}
    other["templateRef"] = {"name": "saturation", "namespace": s.ns}
    start(s, deployment(), canary(threshold=5, metrics=[errors, other]))
    s.release()
    s.weight(20)
    s.metric(custom=0.25)
    s.event("Halt", 1)
    s.metric(custom=7.1)
    s.event("Halt", 2)
    s.metric(custom="empty")
    s.event("Halt", 3)
    s.metric(custom=1.5)
    promoted(s)


# --- webhooks


@story
def hook_pre_rollout_fails(s: Story) -> None:
    s.answer("smoke", 500, "test failed")
    s.answer("after", 400, "not stored")
    hooks = [s.hook("smoke", "pre-rollout"), s.hook("after", "post-rollout"), s.hook("after-too", "post-rollout")]
    start(s, deployment(), canary(threshold=2, webhooks=hooks))
    s.release()
    s.phase("Failed")


@story
def hook_rollback(s: Story) -> None:
    s.answer("roll-back", 403, "no")
    start(s, deployment(), canary(webhooks=[s.hook("roll-back", "rollback"), s.hook("after", "post-rollout")]))
    s.release()
    s.weight(20)
    s.answer("roll-back", 200)
    s.phase("Failed")


@story
def hook_confirm_promotion_ab(s: Story) -> None:
    s.answer("gate-promote", 403)
    start(s, deployment(), canary(iterations=2, match=COOKIE_MATCH, webhooks=[s.hook("gate-promote", "confirm-promotion")]))
    s.release()
    s.called("gate-promote", 3)
    s.answer("gate-promote", 200)
    promoted(s)


# --- life of a run


@story
def skip_analysis(s: Story) -> None:
    hooks = [s.hook("after", "post-rollout"), s.hook("load")]
    start(s, deployment(), canary(metrics=BOTH, spec={"skipAnalysis": True}, webhooks=hooks))
    succeed(s)


@story
def new_revision_mid_run(s: Story) -> None:
    start(s, deployment(), canary(metrics=BOTH))
    s.release("2")
    s.weight(40)
    s.release("3")
    s.event("Restarting analysis")
    promoted(s)


@story
def service_edit_mid_run(s: Story) -> None:
    """An edit of spec.service at weight 40."""
    start(s, deployment(), canary(stepWeight=20, maxWeight=60, metrics=BOTH))
    s.release()
    s.weight(40)
    s.spec(service={"timeout": "7s"})
    promoted(s)


@story
def interval_edit_mid_run(s: Story) -> None:
    start(s, deployment(), canary(metrics=BOTH))
    s.release()
    s.weight(20)
    s.spec(analysis={"interval": "12s"})
    promoted(s)


# --- configuration, autoscalers


@story
def config_change(s: Story) -> None:
    start(s, *configs(), deployment(**CONFIGURED), canary(stepWeight=50, maxWeight=50, metrics=BOTH))
    s.patch("ConfigMap", "settings", {"data": {"a": "2"}})
    promoted(s)
    s.patch("Secret", "keys", {"stringData": {"key": "k2"}})
    promoted(s, 2)
    s.patch("ConfigMap", "untracked", {"data": {"z": "2"}})
    s.settle(12)


@story
def config_change_mid_run(s: Story) -> None:
    start(s, *configs(), deployment(**CONFIGURED), canary(metrics=BOTH))
    s.release()
    s.weight(20)
    s.patch("ConfigMap", "files", {"data": {"text": "new"}})
    s.event("Restarting analysis")
    promoted(s)


@story
def scaled_object_story(s: Story) -> None:
    ref = {"autoscalerRef": {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "web"}}
    start(s, scaled_object(), deployment(), canary(stepWeight=50, maxWeight=50, metrics=BOTH, spec=ref))
    succeed(s)


# --- deletion


GENERATED = [("Deployment", "web-primary"), ("Service", "web-canary"), ("Service", "web-primary")]
ROUTES = [("VirtualService", "web"), ("DestinationRule", "web-canary"), ("DestinationRule", "web-primary")]


def collected(s: Story, *objects: tuple[str, str]) -> None:
    """Wait for the garbage collector, which takes its time on a busy machine."""
    for kind, name in objects:
        s.until(lambda kind=kind, name=name: s.chronicle.of(kind, name)[-1].gone, f"garbage collection of {kind} {name}")  # type: ignore[misc]
    s.settle(5)


@story
def delete_revert_istio(s: Story) -> None:
    """A Service and a VirtualService that were there are given back."""
    start(s, service(), virtual_service(), deployment(), canary(spec={"revertOnDeletion": True}))
    s.delete()
    collected(s, *GENERATED, *(route for route in ROUTES if route[0] == "DestinationRule"))


@story
def delete_revert_kubernetes(s: Story) -> None:
    start(s, deployment(), canary("kubernetes", iterations=1, spec={"revertOnDeletion": True}))
    s.delete()
    collected(s, *GENERATED, ("Service", "web"))


@story
def delete_plain(s: Story) -> None:
    start(s, deployment(), canary())
    s.delete()
    collected(s, *GENERATED, *ROUTES, ("Service", "web"))


@story
def delete_mid_run_revert(s: Story) -> None:
    start(s, deployment(), canary(metrics=BOTH, spec={"revertOnDeletion": True}))
    s.release()
    s.weight(20)
    s.delete()
    collected(s, *GENERATED, *ROUTES, ("Service", "web"))


# --- alerts


@story
def alerts_success(s: Story) -> None:
    """All chats with severity info."""
    kinds = ("slack", "msteams", "discord", "rocket", "gchat")
    s.apply(*(alert_provider(s, kind) for kind in kinds))
    alerts = [{"name": kind, "severity": "info", "providerRef": {"name": kind}} for kind in kinds]
    start(s, deployment(), canary(stepWeight=50, maxWeight=50, alerts=alerts))
    succeed(s)


@story
def alerts_failure(s: Story) -> None:
    """Severities info, warn, error and none; a secret with a token; a provider that is missing."""
    s.apply(
        secret("hook", address=s.alert_url("by-secret"), token="t0ken"),
        alert_provider(s, "slack", "by-secret", "hook"),
        *(alert_provider(s, "slack", name) for name in ("p-info", "p-warn", "p-error", "p-none")),
    )
    s.answer("gate-start", 403)
    alerts = [
        {"name": "i", "severity": "info", "providerRef": {"name": "p-info"}},
        {"name": "w", "severity": "warn", "providerRef": {"name": "p-warn"}},
        {"name": "e", "severity": "error", "providerRef": {"name": "p-error"}},
        {"name": "n", "providerRef": {"name": "p-none"}},
        {"name": "x", "severity": "info", "providerRef": {"name": "absent"}},
        {"name": "s", "severity": "error", "providerRef": {"name": "by-secret"}},
    ]
    gate = [s.hook("gate-start", "confirm-rollout")]
    start(s, deployment(), canary(threshold=1, stepWeights=[20, 50], metrics=BOTH, webhooks=gate, alerts=alerts))
    s.release()
    s.called("gate-start", 2)
    s.answer("gate-start", 200)
    s.weight(20)
    s.metric(success=1.0)
    s.phase("Failed")


@story
def alerts_kinds_failure(s: Story) -> None:
    """The colours of an error in each chat."""
    kinds = ("msteams", "discord", "rocket", "gchat")
    s.apply(*(alert_provider(s, kind) for kind in kinds))
    alerts = [{"name": kind, "severity": "error", "providerRef": {"name": kind}} for kind in kinds]
    start(s, deployment(), canary(threshold=1, iterations=2, match=COOKIE_MATCH, metrics=BOTH, alerts=alerts))
    s.release()
    s.event("iteration 1/2")
    s.metric(success=1.0)
    s.phase("Failed")
