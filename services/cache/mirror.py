"""Keeps the durable store equal to memory, a moment later, and fills memory from it at start.

One task on the event loop decides; one thread does what blocks (the first import of the Milvus client alone takes half a second).
Whatever goes wrong in that thread is a fault: counted, logged in one line, and tried again with back-off. Callers never notice.
"""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from services.cache import metrics
from services.cache.backlog import Backlog, Batch
from services.cache.counts import Counts
from services.cache.entry_filter import EntryFilter
from services.cache.hot_index import HotIndex
from services.cache.kept_entry import KeptEntry
from services.cache.rows import reading_plan
from services.runtime import logs
from services.runtime.clock import Clock

log = logs.get(__name__)
P = ParamSpec("P")
T = TypeVar("T")

QUEUE_LIMIT = 20_000
READ_ROWS = 100
LOGGED_ERROR_LENGTH = 200


class Store(Protocol):
    """A durable store. Every method blocks and may raise anything; all are called from one thread."""

    def open(self) -> None: ...

    def heads(self, now_us: int) -> list[tuple[str, int]]:
        """Row ids and creation times of what has not expired."""
        ...

    def read(self, row_ids: list[str]) -> list[KeptEntry]:
        """The whole entries among these rows."""
        ...

    def apply(self, batch: Batch, now_us: int) -> None: ...

    def sweep(self, now_us: int) -> None:
        """Deletes what has expired."""
        ...

    def close(self) -> None:
        """May be called at any time, also when `open` failed."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How the mirror spends its time, in seconds."""

    batch_rows: int = 250
    # How long a change may wait for company: what a killed process loses.
    window_s: float = 1.0
    retry_s: tuple[float, float] = (1.0, 60.0)
    sweep_s: float = 600.0
    # How long an invalidation waits for the store, and how long a stopping process does.
    removal_s: float = 2.0
    close_s: float = 10.0


class StoreFaultError(Exception):
    """An operation of the store failed; the cause says why."""


class Mirror:
    """Use as an async context manager; leaving it writes what is queued, for at most `close_s`."""

    def __init__(
        self, store: Store, index: HotIndex, counts: Counts, clock: Clock, pace: Pace | None = None, is_warming: bool = True
    ) -> None:
        self._store = store
        self._index = index
        self._counts = counts
        self._clock = clock
        self._pace = pace or Pace()
        self._backlog = Backlog(QUEUE_LIMIT)
        # A cache that is switched off opens its store only for an invalidation, and has nothing to warm.
        self._is_warm = not is_warming
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-store")
        self._has_work = asyncio.Event()
        self._is_urgent = asyncio.Event()
        self._is_closing = asyncio.Event()
        self._removed = asyncio.Event()
        metrics.QUEUE_LENGTH.set_function(lambda: len(self._backlog))

    async def __aenter__(self) -> "Mirror":
        self._task = asyncio.create_task(self._keep_up())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_closing.set()
        self._has_work.set()
        self._is_urgent.set()
        await asyncio.wait([self._task], timeout=self._pace.close_s)
        if not self._task.done():
            self._task.cancel()
            self._fault("close", TimeoutError(f"{len(self._backlog)} changes were not written in time"))
        await asyncio.gather(self._task, return_exceptions=True)
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        await asyncio.wait([closing], timeout=self._pace.close_s)
        self._thread.shutdown(wait=closing.done())

    def write(self, kept: KeptEntry, departed: Iterable[KeptEntry]) -> None:
        """Queues a new entry, and the deletion of those that left memory."""
        self.delete(departed)
        self._backlog.write(kept)
        self._note_change()

    def replace(self, kept: KeptEntry, departed: Iterable[KeptEntry]) -> None:
        """Queues an entry for one that nobody may serve any more: caches that share the store forget that one."""
        self._backlog.remove(EntryFilter(entry_id=kept.entry_id))
        self.write(kept, departed)

    def delete(self, departed: Iterable[KeptEntry]) -> None:
        for kept in departed:
            self._backlog.delete(kept)
            self._note_change()

    def supersedes(self, kept: KeptEntry) -> bool:
        """Whether an entry just read from the store is outdated by what the store has yet to be told."""
        return self._backlog.supersedes(kept)

    def forget(self, chosen: EntryFilter) -> None:
        """Takes back what is queued of what the store was told to remove by another cache."""
        self._backlog.forget(chosen)

    async def remove(self, chosen: EntryFilter) -> None:
        """Applies an invalidation to the store, so that no crash can undo it. While the store is down it stays queued instead."""
        self._backlog.remove(chosen)
        self._note_change()
        await _until(self._removed, self._pace.removal_s)

    def _note_change(self) -> None:
        backlog = self._backlog
        if backlog.dropped_count:
            self._counts.fault(backlog.dropped_count)
            backlog.dropped_count = 0
        self._has_work.set()
        if len(backlog) >= self._pace.batch_rows or backlog.has_removals:
            self._is_urgent.set()

    async def _keep_up(self) -> None:
        delay_s = self._pace.retry_s[0]
        while True:
            if self._is_warm:
                await self._has_work.wait()
            if self._is_closing.is_set() and not self._backlog:
                return
            try:
                await self._open()
                delay_s = self._pace.retry_s[0]
                await self._follow()
                return
            except StoreFaultError as fault:
                self._fault(str(fault), fault.__cause__)
            if self._is_closing.is_set():
                return
            await _until(self._is_closing, delay_s)
            delay_s = min(delay_s * 2, self._pace.retry_s[1])

    async def _open(self) -> None:
        started = self._clock.monotonic()
        await self._do(self._store.close)
        await self._do(self._store.open)
        await self._do(self._store.sweep, self._now_us())
        if not self._is_warm:
            await self._warm()
            self._is_warm = True
        log.info("cache_store_ready", entries=len(self._index), seconds=round(self._clock.monotonic() - started, 3))

    async def _warm(self) -> None:
        heads = await self._do(self._store.heads, self._now_us())
        for row_ids in reading_plan(heads, READ_ROWS):
            now_us = self._now_us()
            for kept in await self._do(self._store.read, row_ids):
                # Callers went on meanwhile: what they stored or removed since is the truth.
                if not self._backlog.supersedes(kept):
                    self._index.restore(kept, now_us)
            if len(self._backlog) >= self._pace.batch_rows or self._backlog.has_removals:
                await self._apply()
            if self._is_closing.is_set():
                return

    async def _follow(self) -> None:
        """Applies changes as they come, until closing finds none left."""
        swept = self._clock.monotonic()
        while True:
            while self._backlog:
                await self._apply()
            if self._is_closing.is_set():
                return
            self._has_work.clear()
            self._is_urgent.clear()
            await _until(self._has_work, self._pace.sweep_s)
            await _until(self._is_urgent, self._pace.window_s if self._backlog else 0)
            if self._clock.monotonic() - swept >= self._pace.sweep_s:
                await self._do(self._store.sweep, self._now_us())
                swept = self._clock.monotonic()

    async def _apply(self) -> None:
        batch = self._backlog.take(self._pace.batch_rows)
        removed, self._removed = self._removed, asyncio.Event()
        try:
            await self._do(self._store.apply, batch, self._now_us())
        except BaseException:
            self._backlog.give_back(batch)
            raise
        finally:
            removed.set()

    async def _do(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a blocking operation in the thread."""
        future = asyncio.wrap_future(self._thread.submit(operation, *args, **kwargs))
        # The error is looked at, not caught: a library may raise what it likes, and a cancelled wait must stay one.
        await asyncio.wait([future])
        if (error := future.exception()) is not None:
            raise StoreFaultError(operation.__name__) from error
        return future.result()

    def _fault(self, operation: str, error: BaseException | None) -> None:
        self._counts.fault()
        text = f"{type(error).__name__}: {error}"[:LOGGED_ERROR_LENGTH]
        log.warning("cache_store_fault", operation=operation, error=text, queued=len(self._backlog))

    def _now_us(self) -> int:
        return int(self._clock.now() * 1e6)


async def _until(event: asyncio.Event, timeout_s: float) -> None:
    """Waits for an event, for at most so long."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
