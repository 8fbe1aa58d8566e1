"""Who is woken by a change of which object."""

from __future__ import annotations

from canary.following import Following, following
from reconcile.api.meta import Key
from reconcile.ports.cluster import Object, Reference
from tests.support.objects import MemoryObjects

WEB, SHOP = Key("prod", "web"), Key("prod", "shop")
TARGET = Reference("apps/v1", "Deployment", "prod", "web")
PRIMARY = Reference("apps/v1", "Deployment", "prod", "web-primary")


def workload(name: str) -> Object:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "prod"}, "spec": {}}


async def test_what_is_read_wakes_from_that_moment_on() -> None:
    """A pod may become ready while the first look at it is still under way."""
    index = Following()
    objects = index.reading(MemoryObjects())
    with following(index, WEB) as look:
        await objects.find(PRIMARY)
        assert index.of(PRIMARY) == [WEB]
        look.complete = True
    assert index.of(PRIMARY) == [WEB]


async def test_a_complete_look_forgets_what_it_did_not_read_and_another_one_does_not() -> None:
    index = Following()
    objects = index.reading(MemoryObjects())
    for which, complete in ((TARGET, True), (PRIMARY, False)):
        with following(index, WEB) as look:
            await objects.find(which)
            look.complete = complete
    assert (index.of(TARGET), index.of(PRIMARY)) == ([WEB], [WEB])
    with following(index, WEB) as look:
        await objects.stamp(PRIMARY)
        look.complete = True
    assert (index.of(TARGET), index.of(PRIMARY)) == ([], [WEB])


async def test_each_canary_has_reads_of_its_own_and_nothing_stays_of_one_that_is_gone() -> None:
    index = Following()
    objects = index.reading(MemoryObjects())
    for key in (WEB, SHOP):
        with following(index, key) as look:
            await objects.find(TARGET)
            look.complete = True
    await objects.find(PRIMARY)
    assert sorted(index.of(TARGET)) == [SHOP, WEB]
    assert index.of(PRIMARY) == []
    index.forget(WEB)
    index.forget(SHOP)
    assert len(index) == 0


async def test_a_write_on_top_of_what_was_read_is_news_to_everybody_but_its_writer() -> None:
    index, cluster = Following(), MemoryObjects([workload("web")])
    objects = index.reading(cluster)
    woken: list[list[Key]] = []
    cluster.subscribe(lambda moved: woken.append(index.of(moved.which)))
    with following(index, SHOP) as look:
        await objects.find(TARGET)
        look.complete = True
    with following(index, WEB):
        found = await objects.get(TARGET)
        await objects.patch(found, {"spec": {"replicas": 2}}, manager="m")
        await objects.find(PRIMARY)
        await objects.create(workload("web-primary"), manager="m")
    assert woken == [[SHOP], []]


async def test_a_write_on_top_of_whatever_is_there_is_news_to_its_writer_too() -> None:
    """It may bring somebody else's change, which the watch does not tell of any more."""
    index, cluster = Following(), MemoryObjects([workload("web")])
    objects = index.reading(cluster)
    woken: list[list[Key]] = []
    cluster.subscribe(lambda moved: woken.append(index.of(moved.which)))
    with following(index, WEB):
        await objects.find(TARGET)
        await objects.patch(TARGET, {"spec": {"replicas": 2}}, manager="m")
    assert woken == [[WEB]]
