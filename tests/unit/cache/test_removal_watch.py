"""When a cache takes out of its memory what another one was told to remove."""

import asyncio

from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import mark
from services.cache.removal_watch import KEPT_US, SKEW_US, Removal, RemovalWatch
from tests.unit.cache.samples import SECOND_US, HeldClock, kept

PATIENCE_S = 20
OURS = EntryFilter(tenant=mark("acme"))


class Cluster:
    """Answers one question at a time, when it is let."""

    def __init__(self) -> None:
        self.told: list[Removal] | None = []
        self.asked_since: list[int] = []
        self.forgotten: list[EntryFilter] = []
        self._may_answer = asyncio.Semaphore(0)
        self._polls = asyncio.Condition()

    async def removals(self, since_us: int) -> list[Removal] | None:
        async with self._polls:
            self.asked_since.append(since_us)
            self._polls.notify_all()
        await self._may_answer.acquire()
        return self.told

    def forget(self, chosen: EntryFilter) -> None:
        self.forgotten.append(chosen)

    async def answer(self) -> None:
        """Lets it answer, and waits until it is asked again."""
        polls = len(self.asked_since)
        self._may_answer.release()
        async with asyncio.timeout(PATIENCE_S), self._polls:
            await self._polls.wait_for(lambda: len(self.asked_since) > max(1, polls))


def watch(cluster: Cluster) -> tuple[RemovalWatch, HeldClock]:
    clock = HeldClock()
    return RemovalWatch(cluster, cluster, clock, poll_s=0), clock


async def test_each_removal_is_applied_once_however_often_it_is_told() -> None:
    cluster = Cluster()
    cluster.told = [Removal("a", 7, OURS)]
    async with watch(cluster)[0]:
        await cluster.answer()
        cluster.told = [Removal("a", 7, OURS), Removal("b", 8, OURS)]
        await cluster.answer()
    assert cluster.forgotten == [Removal("a", 7, OURS).reach, Removal("b", 8, OURS).reach]


async def test_who_could_not_ask_for_a_while_asks_about_that_while_and_who_missed_some_forgets_everything() -> None:
    cluster = Cluster()
    watching, clock = watch(cluster)
    async with watching:
        await cluster.answer()
        cluster.told, since = None, cluster.asked_since[-1]
        clock.seconds += 600
        await cluster.answer()
        await cluster.answer()
        assert cluster.asked_since[-1] == since
        cluster.told = []
        await cluster.answer()
        assert cluster.forgotten == []
        cluster.told = None
        clock.seconds += KEPT_US / SECOND_US
        await cluster.answer()
        cluster.told = []
        await cluster.answer()
        assert cluster.forgotten == [EntryFilter()]


def test_what_came_later_stays_but_for_what_clocks_may_differ_by() -> None:
    removal = Removal("a", 10 * SECOND_US, OURS)
    assert removal.reach.matches(kept(created_us=9 * SECOND_US))
    assert removal.reach.matches(kept(created_us=10 * SECOND_US + SKEW_US))
    assert not removal.reach.matches(kept(created_us=11 * SECOND_US + SKEW_US))
    assert not removal.reach.matches(kept(tenant="emca", created_us=9 * SECOND_US))
    aged = Removal("b", 10 * SECOND_US, EntryFilter(created_until_us=4))
    assert (aged.reach.matches(kept(created_us=4)), aged.reach.matches(kept(created_us=5))) == (True, False)
