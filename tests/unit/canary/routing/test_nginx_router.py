"""NginxRouter: the canary Ingress and its annotations, against recorded runs of Flagger and beyond them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.errors import Problem
from canary.routing import make_router
from canary.routing.base import ALL_PRIMARY, Weights
from canary.routing.nginx import NginxRouter
from canary.settings import CanarySettings
from canary.site import FLUX_OFF, Site
from reconcile.errors import NotFound, ReconcileError
from reconcile.ports.cluster import Object, Reference
from tests.support.objects import MemoryObjects
from tests.support.router_cases import INGRESS_REF, INSIDER, SETTINGS, StubbornObjects, ab, ingress, path, recorded, rule, site

PREFIX = "nginx.ingress.kubernetes.io"
CANARY = Reference("networking.k8s.io/v1", "Ingress", "prod", "web-canary")
APEX = Reference("networking.k8s.io/v1", "Ingress", "prod", "web")
OFF = {f"{PREFIX}/canary": "true", f"{PREFIX}/canary-weight": "0"}


def where(analysis: dict[str, Any] | None = None) -> Site:
    return site("nginx", analysis=analysis, ingressRef=INGRESS_REF)


def live(objects: MemoryObjects) -> Object:
    found = objects.now(CANARY)
    assert found is not None
    return found


def canary_annotations(objects: MemoryObjects) -> dict[str, str]:
    """Those of nginx' canary."""
    return {n: v for n, v in live(objects)["metadata"]["annotations"].items() if n.startswith(f"{PREFIX}/canary")}


async def made(objects: MemoryObjects, at: Site | None = None) -> NginxRouter:
    router = NginxRouter(objects, SETTINGS)
    await router.reconcile(at or where())
    return router


@pytest.mark.parametrize(
    ("story", "weights"), [("nginx-weight", [20, 40, 0]), ("nginx-rollback", [20, 0]), ("nginx-ab", [100, 0])]
)
async def test_makes_and_changes_what_flagger_does(story: str, weights: list[int]) -> None:
    case = recorded(story)

    await case.run(NginxRouter(case.objects, SETTINGS), *weights)

    assert case.seen == case.made


@pytest.mark.parametrize("story", ["nginx-wrong-backend", "nginx-missing-ingress"])
async def test_says_what_keeps_it_from_starting_as_flagger_does(story: str) -> None:
    case = recorded(story)

    with pytest.raises(Problem) as caught:
        await NginxRouter(case.objects, SETTINGS).reconcile(case.site)

    assert [str(caught.value)] == case.warnings
    assert case.objects.writes == []


async def test_needs_an_ingress_reference() -> None:
    router = NginxRouter(MemoryObjects(), SETTINGS)

    with pytest.raises(Problem, match=r"^ingress selector is empty$"):
        await router.reconcile(site("nginx"))
    with pytest.raises(Problem, match=r"^ingress selector is empty$"):
        await router.weights(site("nginx"))


async def test_a_kind_that_is_not_served_is_no_absent_ingress() -> None:
    objects = MemoryObjects()
    objects.missing_kinds.add(("networking.k8s.io/v1", "Ingress"))

    with pytest.raises(Problem, match=r"^ingress web\.prod get query error: the server could not find"):
        await NginxRouter(objects, SETTINGS).reconcile(where())


@given(weight=st.integers(0, 100))
async def test_reads_back_every_weight(weight: int) -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)

    await router.set_weights(where(), Weights.at(weight))
    objects.forget()
    await router.reconcile(where())

    assert await router.weights(where()) == Weights.at(weight)
    assert objects.writes == [], "a reconcile neither moves weights nor writes what is there"


@given(weight=st.integers(0, 100))
async def test_an_ab_test_is_on_with_any_weight(weight: int) -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects, where(ab()))

    await router.set_weights(where(ab()), Weights.at(weight))
    objects.forget()
    await router.reconcile(where(ab()))

    assert await router.weights(where(ab())) == (Weights(0, 100) if weight else ALL_PRIMARY)
    assert canary_annotations(objects)[f"{PREFIX}/canary-weight"] == "0"
    assert objects.writes == []


@pytest.mark.parametrize(
    ("matches", "told"),
    [
        ([{"headers": {"x-a": {"regex": "^b.*"}}}], {"by-header": "x-a", "by-header-pattern": "^b.*"}),
        ([{"headers": {"x-a": {"prefix": "b.c"}}}], {"by-header": "x-a", "by-header-pattern": r"^b\.c"}),
        ([{"headers": {"x-a": {"suffix": "b.c"}}}], {"by-header": "x-a", "by-header-pattern": r"b\.c$"}),
        ([{"headers": {"cookie": {"exact": "always"}}}], {"by-cookie": "always"}),
        ([INSIDER, {"headers": {"x-b": {"exact": "c"}}}], {"by-header": "x-b", "by-header-value": "c"}),
        ([{"headers": {"cookie": {"regex": "a.*"}}}, INSIDER], {"by-header": "x-canary", "by-header-value": "insider"}),
    ],
)
async def test_says_who_is_in_the_test(matches: list[dict[str, Any]], told: dict[str, str]) -> None:
    objects = MemoryObjects([ingress()])
    at = where(ab(*matches))
    router = await made(objects, at)

    await router.set_weights(at, Weights.at(100))

    assert canary_annotations(objects) == OFF | {f"{PREFIX}/canary-{name}": value for name, value in told.items()}


@pytest.mark.parametrize("match", [{"headers": {"cookie": {"regex": "a.*"}}}, {"sourceLabels": {"app": "x"}}])
async def test_refuses_a_test_that_nobody_would_be_in(match: dict[str, Any]) -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects, where(ab(match)))
    before = live(objects)

    with pytest.raises(Problem, match=r"analysis\.match has neither"):
        await router.set_weights(where(ab(match)), Weights.at(100))

    assert live(objects) == before
    await router.set_weights(where(ab(match)), ALL_PRIMARY)


async def test_another_match_takes_the_place_of_the_one_before() -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects, where(ab()))
    await router.set_weights(where(ab()), Weights.at(100))

    other = where(ab({"headers": {"cookie": {"exact": "me"}}}))
    await router.set_weights(other, Weights.at(100))

    assert canary_annotations(objects) == OFF | {f"{PREFIX}/canary-by-cookie": "me"}


async def test_all_rules_and_paths_follow_with_their_types_and_tls() -> None:
    apex = ingress(
        tls=[{"hosts": ["a.example.org"], "secretName": "a"}],
        defaultBackend={"service": {"name": "web", "port": {"name": "http"}}},
        rules=[
            rule(
                path("web", "/a", "Exact"), path("other", "/b"), path("web", "/c", "ImplementationSpecific"), host="a.example.org"
            ),
            {"host": "redirect.example.org"},
            rule({"path": "/s", "pathType": "Prefix", "backend": {"resource": {"kind": "Bucket", "name": "b"}}}, host=""),
            rule(path("web"), host="*.example.org"),
        ],
    )
    objects = MemoryObjects([apex])

    await made(objects)

    assert live(objects)["spec"] == {
        "ingressClassName": "web",
        "tls": [{"hosts": ["a.example.org"], "secretName": "a"}],
        "defaultBackend": {"service": {"name": "web-canary", "port": {"name": "http"}}},
        "rules": [
            rule(
                path("web-canary", "/a", "Exact"),
                path("other", "/b"),
                path("web-canary", "/c", "ImplementationSpecific"),
                host="a.example.org",
            ),
            {"host": "redirect.example.org"},
            rule({"path": "/s", "pathType": "Prefix", "backend": {"resource": {"kind": "Bucket", "name": "b"}}}, host=""),
            rule(path("web-canary"), host="*.example.org"),
        ],
    }
    assert objects.now(APEX) is not None
    assert objects.now(APEX)["spec"] == apex["spec"]  # type: ignore[index]


async def test_a_default_backend_alone_will_do() -> None:
    only_default = {"service": {"name": "web", "port": {"number": 80}}}
    objects = MemoryObjects([ingress(rules=[], defaultBackend=only_default)])

    await made(objects)

    assert live(objects)["spec"]["defaultBackend"]["service"]["name"] == "web-canary"


async def test_a_change_of_the_spec_follows_in_mid_run_and_keeps_the_weight() -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    await router.set_weights(where(), Weights.at(30))
    objects.change(APEX, {"spec": {"rules": [rule(path("web", "/new"))]}, "metadata": {"annotations": {"later": "x"}}})

    await router.reconcile(where())

    assert live(objects)["spec"]["rules"] == [rule(path("web-canary", "/new"))]
    assert "later" not in live(objects)["metadata"]["annotations"]
    assert await router.weights(where()) == Weights.at(30)


async def test_annotations_are_taken_over_but_for_those_of_a_canary_and_of_kubectl() -> None:
    apex = ingress()
    apex["metadata"]["annotations"] |= {
        f"{PREFIX}/canary-by-header": "x",
        f"{PREFIX}/rewrite-target": "/",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
    }
    objects = MemoryObjects([apex])

    await made(objects)

    assert live(objects)["metadata"]["annotations"] == OFF | dict(FLUX_OFF) | {
        "example.org/keep": "yes",
        f"{PREFIX}/rewrite-target": "/",
    }


async def test_another_prefix_of_annotations() -> None:
    objects = MemoryObjects([ingress()])
    router = NginxRouter(objects, CanarySettings(ingress_annotations_prefix="custom.example.org"))
    await router.reconcile(where())

    await router.set_weights(where(), Weights.at(10))

    assert live(objects)["metadata"]["annotations"]["custom.example.org/canary-weight"] == "10"
    assert canary_annotations(objects) == {}


@given(
    labels=st.dictionaries(st.sampled_from(["a", "b/c"]), st.text(max_size=3)),
    foreign=st.dictionaries(st.sampled_from(["x", "example.org/y", f"{PREFIX}/affinity"]), st.text(max_size=3)),
    weight=st.integers(0, 100),
)
async def test_what_others_write_beside_stays(labels: dict[str, str], foreign: dict[str, str], weight: int) -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    objects.change(CANARY, {"metadata": {"labels": labels, "annotations": foreign}})

    await router.reconcile(where())
    await router.set_weights(where(), Weights.at(weight))

    meta = live(objects)["metadata"]
    assert meta["labels"] == {"app": "web", **labels}
    assert meta["annotations"].items() >= foreign.items()


@pytest.mark.parametrize("weight", [None, "", "many", "101", "-1", "٣"])
async def test_a_weight_that_cannot_be_read_is_a_problem_and_is_put_right(weight: str | None) -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    objects.change(CANARY, {"metadata": {"annotations": {f"{PREFIX}/canary-weight": weight, f"{PREFIX}/canary": None}}})

    with pytest.raises(Problem, match=r"^ingress web-canary\.prod has no weight in its annotation .*/canary-weight$"):
        await router.weights(where())
    await router.reconcile(where())

    assert canary_annotations(objects) == OFF


async def test_weights_are_in_percent_whatever_total_somebody_set() -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    objects.change(CANARY, {"metadata": {"annotations": {f"{PREFIX}/canary-weight-total": "1000"}}})

    await router.reconcile(where())

    assert canary_annotations(objects) == OFF


async def test_a_header_that_somebody_added_lasts_until_nothing_goes_to_the_canary() -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    by_header = {f"{PREFIX}/canary-by-header": "x-tester"}
    objects.change(CANARY, {"metadata": {"annotations": by_header}})

    await router.set_weights(where(), Weights.at(50))
    assert canary_annotations(objects) == OFF | by_header | {f"{PREFIX}/canary-weight": "50"}
    assert await router.weights(where()) == Weights.at(50)

    await router.set_weights(where(), ALL_PRIMARY)
    assert canary_annotations(objects) == OFF


async def test_weights_are_set_though_the_ingress_of_the_application_is_broken() -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    await router.set_weights(where(), Weights.at(50))
    objects.remove(APEX)

    await router.set_weights(where(), ALL_PRIMARY)

    assert await router.weights(where()) == ALL_PRIMARY


async def test_a_canary_ingress_that_is_gone_is_made_with_the_weight() -> None:
    objects = MemoryObjects([ingress()])
    router = NginxRouter(objects, SETTINGS)
    with pytest.raises(Problem, match=r'^ingress web-canary\.prod get query error: ingresses\.networking\.k8s\.io "web-canary"'):
        await router.weights(where())

    await router.set_weights(where(), Weights.at(100))

    assert await router.weights(where()) == Weights.at(100)
    assert live(objects)["metadata"]["ownerReferences"] == [where().owner]


async def test_a_write_that_does_not_become_live_is_a_problem() -> None:
    objects = StubbornObjects([ingress()])
    router = await made(objects)

    with pytest.raises(Problem, match=r"^ingress web-canary\.prod update error: 70/30 was written, 100/0 is live$"):
        await router.set_weights(where(), Weights.at(30))


async def test_a_refused_write_is_a_problem() -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    objects.fail["patch", "Ingress", "web-canary"] = ReconcileError("denied by a webhook")

    with pytest.raises(Problem, match=r"^ingress web-canary\.prod update error: denied by a webhook$"):
        await router.set_weights(where(), Weights.at(30))


async def test_a_lost_race_is_run_again_on_the_newer_object() -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    objects.before["Ingress", "web-canary"] = lambda: objects.change(CANARY, {"metadata": {"annotations": {"faster": "yes"}}})

    await router.set_weights(where(), Weights.at(30))

    assert live(objects)["metadata"]["annotations"]["faster"] == "yes"
    assert await router.weights(where()) == Weights.at(30)


async def test_an_ingress_that_somebody_else_made_gets_no_owner() -> None:
    theirs = ingress()
    theirs["metadata"]["name"] = "web-canary"
    objects = MemoryObjects([ingress(), theirs])

    await made(objects)

    assert "ownerReferences" not in live(objects)["metadata"]
    assert canary_annotations(objects) == OFF


async def test_reverting_leaves_the_ingress_to_the_garbage_collector() -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    objects.forget()

    await router.revert(where())

    assert objects.writes == []


@pytest.mark.parametrize(
    ("reads", "told"),
    [
        ([ReconcileError("the server is away")], "get query error: the server is away"),
        ([None, NotFound("gone meanwhile")], "not found"),
    ],
)
@pytest.mark.parametrize("provider", ["nginx", "skipper"])
async def test_a_canary_ingress_that_cannot_be_read_is_a_problem(
    provider: str, reads: list[BaseException | None], told: str
) -> None:
    objects = MemoryObjects([ingress()])
    at = site(provider, ingressRef=INGRESS_REF)
    router = make_router(provider, objects, SETTINGS)
    await router.reconcile(at)
    objects.forget()
    objects.fail["get", "Ingress", "web-canary"] = list(reads)

    with pytest.raises(Problem, match=rf"^ingress web-canary\.prod {told}$"):
        await router.set_weights(at, Weights.at(30))
    assert objects.writes == []
