"""What memory does not have, other caches may have written: reads of the Milvus cluster that several share.

A cluster is asked with bounded staleness, which is a tenth of the time of asking it for the latest: it may still show what was removed here
a moment ago, so removals are remembered for longer than it may lag. A cluster that fails or is late is left alone for a while.
"""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from services.cache.counts import Counts
from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import KeptEntry, KeptWording
from services.cache.removal_watch import Removal
from services.runtime import logs
from services.runtime.clock import Clock

log = logs.get(__name__)

# Under what a router waits for a lookup.
DEADLINE_S = 0.03
RETRY_S = 5.0
# Longer than Milvus lags when it is asked with bounded staleness.
LAG_S = 30.0
_THREADS = 4


class SharedStore(Protocol):
    """A store that others write to. Its methods block, may raise anything, and may be called by several threads."""

    def open(self) -> None: ...

    def find(self, entry_id: str, wording: KeptWording | None, count: int) -> list[KeptEntry]:
        """The entry of that id, and the `count` nearest to the words in their scope."""
        ...

    def removals(self, since_us: int) -> list[Removal]:
        """What others have removed since then."""
        ...

    def close(self) -> None: ...


class SharedReads:
    """Reads for one cache; `count` is how many neighbours are looked at."""

    def __init__(self, store: SharedStore, count: int, counts: Counts, clock: Clock, deadline_s: float = DEADLINE_S) -> None:
        self._store = store
        self._count = count
        self._counts = counts
        self._clock = clock
        self._deadline_s = deadline_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cache-shared")
        self._opening: asyncio.Future[None] | None = None
        self._retry_at = 0.0
        self._removals: deque[tuple[float, EntryFilter]] = deque()

    async def find(self, entry_id: str, wording: KeptWording | None) -> list[KeptEntry]:
        """What may serve, as others have written it; nothing when the cluster cannot say in time, which is counted."""
        if self._clock.monotonic() < self._retry_at:
            return []
        loop, opening = asyncio.get_running_loop(), self._opened()
        if not opening.done():
            # Connecting takes longer than a lookup may.
            return []
        error = opening.exception()
        if error is None:
            reading = loop.run_in_executor(self._threads, self._store.find, entry_id, wording, self._count)
            reading.add_done_callback(_look_at)
            await asyncio.wait([reading], timeout=self._deadline_s)
            if not reading.done():
                error = TimeoutError("late")
            elif (error := reading.exception()) is None:
                return [kept for kept in reading.result() if not self._is_removed(kept)]
        self._fail(error)
        return []

    async def removals(self, since_us: int) -> list[Removal] | None:
        """What other caches have removed since then; None when the cluster cannot say, which is counted."""
        if self._clock.monotonic() < self._retry_at:
            return None
        opening = self._opened()
        await asyncio.wait([opening])
        error = opening.exception()
        if error is None:
            reading = asyncio.get_running_loop().run_in_executor(self._threads, self._store.removals, since_us)
            await asyncio.wait([reading])
            if (error := reading.exception()) is None:
                return reading.result()
        self._fail(error)
        return None

    def note_removal(self, chosen: EntryFilter) -> None:
        """Notes that what a filter matches was removed, and must not come back from a cluster that has yet to see that."""
        self._removals.append((self._clock.monotonic() + LAG_S, chosen))

    async def close(self) -> None:
        if self._opening is not None:
            await asyncio.wait([self._opening])
            self._opening.exception()
        self._threads.submit(self._store.close)
        self._threads.shutdown(wait=False)

    def _opened(self) -> "asyncio.Future[None]":
        if self._opening is None:
            self._opening = asyncio.get_running_loop().run_in_executor(self._threads, self._store.open)
        return self._opening

    def _is_removed(self, kept: KeptEntry) -> bool:
        now = self._clock.monotonic()
        while self._removals and self._removals[0][0] < now:
            self._removals.popleft()
        return any(chosen.matches(kept) for _, chosen in self._removals)

    def _fail(self, error: BaseException) -> None:
        self._counts.fault()
        self._retry_at = self._clock.monotonic() + RETRY_S
        if self._opening is not None and self._opening.exception() is not None:
            self._opening = None
        log.warning("cache_cluster_fault", error=f"{type(error).__name__}: {error}"[:200], retry_s=RETRY_S)


def _look_at(future: "asyncio.Future[list[KeptEntry]]") -> None:
    """Nobody may be left to do so."""
    if not future.cancelled():
        future.exception()
