"""The mirror: what is stored reaches the store, what is removed stays removed, and faults stay inside."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.cache.counts import Counts
from services.cache.entry_filter import EntryFilter
from services.cache.hot_index import HotIndex
from services.cache.kept_entry import KeptEntry, mark
from services.cache.mirror import Mirror, Pace
from services.cache.rows import rows_of
from tests.unit.cache.memory_store import MemoryStore
from tests.unit.cache.samples import SECOND_US, HeldClock, kept

EAGER = Pace(window_s=0.001, retry_s=(0.001, 0.01), removal_s=0.05, close_s=5)


class Bench:
    """A mirror over a store in memory, with the index that it fills."""

    def __init__(self, store: MemoryStore, pace: Pace, is_warming: bool, max_entries: int = 100) -> None:
        self.store = store
        self.index = HotIndex(max_entries, 1_000_000)
        self.counts = Counts()
        self.clock = HeldClock()
        self.mirror = Mirror(store, self.index, self.counts, self.clock, pace, is_warming)

    def entry(self, number: int, model: str = "large", ttl_s: int = 60) -> KeptEntry:
        return kept(number, model=model, created_us=int(self.clock.seconds * SECOND_US) - 100 + number, ttl_us=ttl_s * SECOND_US)

    def keep(self, entry: KeptEntry) -> None:
        self.mirror.write(entry, self.index.put(entry))

    async def remove(self, chosen: EntryFilter) -> None:
        self.index.remove(chosen)
        await self.mirror.remove(chosen)

    def in_memory(self) -> set[str]:
        return set(self.index._entries)


@asynccontextmanager
async def bench(
    store: MemoryStore | None = None, pace: Pace = EAGER, is_warming: bool = True, max_entries: int = 100
) -> AsyncIterator[Bench]:
    made = Bench(store or MemoryStore(), pace, is_warming, max_entries)
    async with made.mirror:
        yield made


async def until(is_so: Callable[[], bool]) -> None:
    """Waits for what the mirror's thread does; it sets no event here."""
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.001)


def store_with(*entries: KeptEntry) -> MemoryStore:
    store = MemoryStore()
    store.rows = {row["row_id"]: row for entry in entries for row in rows_of(entry)}
    return store


def made_entries(*numbers: int) -> list[KeptEntry]:
    return [Bench(MemoryStore(), EAGER, True).entry(number) for number in numbers]


async def test_stored_entry_reaches_the_store_without_being_waited_for() -> None:
    async with bench() as it:
        it.keep(entry := it.entry(1))
        await until(lambda: it.store.whole() == {entry.entry_id: entry})


async def test_leaving_writes_what_is_queued() -> None:
    async with bench(pace=dataclasses.replace(EAGER, window_s=3600)) as it:
        await until(lambda: it.store.open_count == 1)
        for number in range(600):
            it.keep(it.entry(number, ttl_s=3600))
    assert len(it.store.whole()) == 100
    assert it.in_memory() == set(it.store.whole())


async def test_a_full_batch_does_not_wait_for_the_window() -> None:
    async with bench(pace=dataclasses.replace(EAGER, window_s=3600, batch_rows=10)) as it:
        for number in range(10):
            it.keep(it.entry(number))
        await until(lambda: len(it.store.whole()) == 10)


async def test_start_fills_memory_from_the_store() -> None:
    entries = made_entries(*range(250))
    async with bench(store_with(*entries), max_entries=1000) as it:
        await until(lambda: it.in_memory() == {entry.entry_id for entry in entries})


async def test_newest_entries_are_taken_when_not_all_fit() -> None:
    entries = made_entries(*range(20))
    async with bench(store_with(*entries), max_entries=5) as it:
        await until(lambda: it.in_memory() == {entry.entry_id for entry in entries[15:]})


async def test_expired_entries_are_neither_loaded_nor_kept() -> None:
    expired = kept(1, created_us=0, ttl_us=SECOND_US)
    async with bench(store_with(expired)) as it:
        await until(lambda: not it.store.rows)
        assert not it.in_memory()


async def test_stored_during_the_start_outweighs_what_the_store_had() -> None:
    (old,) = made_entries(1)
    store = store_with(old)
    store.may_run.clear()
    async with bench(store) as it:
        it.keep(new := dataclasses.replace(old, created_us=old.created_us + 1, data=b""))
        store.may_run.set()
        await until(lambda: it.store.whole() == {new.entry_id: new})
        assert it.index.get(new.entry_id, new.created_us) is new


async def test_removed_during_the_start_is_not_loaded() -> None:
    entries = made_entries(*range(150))
    store = store_with(*entries)
    store.may_run.clear()
    async with bench(store, max_entries=1000) as it:
        await it.remove(EntryFilter(tenant=mark("acme")))
        store.may_run.set()
        await until(lambda: not store.rows and bool(store.applied))
        assert not it.in_memory()


async def test_removal_has_reached_the_store_when_it_is_acknowledged() -> None:
    async with bench(pace=dataclasses.replace(EAGER, window_s=3600, removal_s=5)) as it:
        await until(lambda: it.store.open_count == 1)
        it.keep(it.entry(1))
        it.keep(other := it.entry(2, model="small"))
        await it.remove(EntryFilter(model=mark("large")))
        assert set(it.store.whole()) == {other.entry_id}


async def test_evicted_entry_leaves_the_store_too() -> None:
    async with bench(max_entries=2) as it:
        for number in (1, 2, 3):
            it.keep(it.entry(number))
            await until(lambda number=number: it.entry(number).entry_id in it.store.whole())  # type: ignore[misc]
        await until(lambda: set(it.store.whole()) == it.in_memory())


async def test_fault_is_counted_and_made_good_once_the_store_is_back() -> None:
    async with bench() as it:
        it.keep(first := it.entry(1))
        await until(lambda: bool(it.store.whole()))
        it.store.is_broken = True
        it.keep(second := it.entry(2))
        await until(lambda: it.counts.faults >= 3)
        it.store.is_broken = False
        await until(lambda: it.store.whole() == {entry.entry_id: entry for entry in (first, second)})
        assert it.store.open_count == 2


async def test_removal_is_not_held_up_by_a_broken_store_and_applies_when_it_is_back() -> None:
    (old,) = made_entries(1)
    async with bench(store_with(old)) as it:
        await until(lambda: bool(it.in_memory()))
        it.store.is_broken = True
        it.keep(it.entry(2))
        await until(lambda: it.counts.faults >= 2)
        await it.remove(EntryFilter())
        it.store.is_broken = False
        await until(lambda: not it.store.rows)


async def test_fault_during_the_start_is_made_good() -> None:
    entries = made_entries(1, 2)
    store = store_with(*entries)
    store.is_broken = True
    async with bench(store) as it:
        await until(lambda: it.counts.faults >= 2)
        store.is_broken = False
        await until(lambda: len(it.in_memory()) == 2)


async def test_leaving_is_bounded_when_the_store_hangs() -> None:
    store = MemoryStore()
    started = asyncio.get_running_loop().time()
    async with bench(store, pace=dataclasses.replace(EAGER, close_s=0.05)) as it:
        await until(lambda: store.open_count == 1)
        store.may_run.clear()
        it.keep(it.entry(1))
    assert asyncio.get_running_loop().time() - started < 2
    assert it.counts.faults == 1
    store.may_run.set()


async def test_cache_that_is_off_opens_its_store_only_for_a_removal() -> None:
    store = store_with(*made_entries(1))
    async with bench(store, pace=dataclasses.replace(EAGER, removal_s=5), is_warming=False) as it:
        await asyncio.sleep(0)
        assert store.open_count == 0
        await it.remove(EntryFilter())
        assert not store.rows
        assert not it.in_memory()
