"""What one cache keeps, another one on the same cluster finds; what goes wrong with the cluster is a miss and a count."""

import asyncio

from joulegate.cache.v1 import cache_service_pb2 as pb
from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import mark
from services.wire.fingerprint import entry_id
from tests.unit.cache.memory_store import MemoryStore
from tests.unit.cache.samples import key
from tests.unit.cache.two_caches import PATIENCE_S, OneCache, two_caches

TEXT, OTHER_TEXT = "how do i boil an egg", "how do i boil one egg"


async def connected(cache: OneCache, store: MemoryStore) -> None:
    """The first lookup begins to connect."""
    before = store.open_count
    async with asyncio.timeout(PATIENCE_S):
        while store.open_count == before:
            await cache.tier(99, "nothing like it")
            await asyncio.sleep(0)
        # The one that opened is told so by the loop.
        for _ in range(10):
            await asyncio.sleep(0.01)


async def test_other_caches_find_an_answer_by_its_request_and_by_other_words() -> None:
    store = MemoryStore()
    async with two_caches(lambda: store) as (one, other):
        await one.keep(1, TEXT)
        await other.until_tier(2, OTHER_TEXT, pb.TIER_SEMANTIC)
        await other.until_tier(1, TEXT, pb.TIER_EXACT)
        # It is in memory now: the store need not be asked.
        store.is_broken = True
        assert await other.tier(1, TEXT) == pb.TIER_EXACT
        assert other.counts.faults == 0


async def test_removed_entry_does_not_come_back_from_a_cluster_that_lags() -> None:
    store = MemoryStore()
    async with two_caches(lambda: store) as (one, other):
        await one.keep(1, TEXT)
        await other.until_tier(1, TEXT, pb.TIER_EXACT)
        rows = dict(store.rows)
        await other.cache.invalidate(EntryFilter(tenant=mark("acme")))
        store.rows = rows
        assert await other.tier(1, TEXT) is None
        assert await other.tier(2, OTHER_TEXT) is None
        other.clock.seconds += 60
        assert await other.tier(1, TEXT) == pb.TIER_EXACT


async def test_what_one_cache_removes_leaves_the_memory_of_the_others() -> None:
    store = MemoryStore()
    async with two_caches(lambda: store, watches=True) as (one, other):
        for number, text in ((1, TEXT), (5, "what is a joule")):
            await one.keep(number, text)
            await other.until_tier(number, text, pb.TIER_EXACT)
        await one.cache.invalidate(EntryFilter(entry_id=entry_id(key(1))))
        # Its memory has it until it is told: the lookup asks nobody else.
        async with asyncio.timeout(PATIENCE_S):
            while await other.tier(1, TEXT) is not None:
                await asyncio.sleep(0.01)
        assert await other.tier(2, OTHER_TEXT) is None
        assert await other.tier(5, "what is a joule") == pb.TIER_EXACT


async def test_entry_that_proved_wrong_in_one_cache_serves_no_other_words_in_any() -> None:
    store = MemoryStore()
    async with two_caches(lambda: store, watches=True) as (one, other):
        await one.keep(1, TEXT)
        await other.until_tier(2, OTHER_TEXT, pb.TIER_SEMANTIC)
        await one.lessons.report("acme", entry_id(key(1)), pb.TIER_SEMANTIC, is_right=False)
        async with asyncio.timeout(PATIENCE_S):
            while await other.tier(2, OTHER_TEXT) is not None:
                await asyncio.sleep(0.01)
        # Its own words it goes on serving, once the cluster is believed again.
        await other.until_tier(1, TEXT, pb.TIER_EXACT)
        assert await other.tier(2, OTHER_TEXT) is None


async def test_cluster_that_fails_is_a_count_and_is_left_alone_for_a_while() -> None:
    store = MemoryStore()
    async with two_caches(lambda: store) as (_, other):
        await connected(other, store)
        faults = other.counts.faults
        store.is_broken = True
        assert await other.tier(1, TEXT) is None
        assert await other.tier(1, TEXT) is None
        assert other.counts.faults == faults + 1
        other.clock.seconds += 10
        assert await other.tier(1, TEXT) is None
        assert other.counts.faults == faults + 2
        store.is_broken = False


async def test_cluster_that_is_late_is_not_waited_for() -> None:
    store = MemoryStore()
    async with two_caches(lambda: store, deadline_s=0.01) as (_, other):
        await connected(other, store)
        faults = other.counts.faults
        other.clock.seconds += 10
        store.may_run.clear()
        assert await other.tier(1, TEXT) is None
        store.may_run.set()
        assert other.counts.faults == faults + 1
