"""Who is woken by a change of which object."""

from __future__ import annotations

from canary.following import Following, following
from reconcile.api.meta import Key
from reconcile.ports.cluster import Reference
from tests.support.objects import MemoryObjects

WEB, SHOP = Key("prod", "web"), Key("prod", "shop")
TARGET = Reference("apps/v1", "Deployment", "prod", "web")
PRIMARY = Reference("apps/v1", "Deployment", "prod", "web-primary")


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
