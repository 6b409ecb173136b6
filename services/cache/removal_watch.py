"""What other caches on a cluster were told to remove, taken out of this one's memory too.

Each removal lies in the cluster for a while, with when and by whom it was told. All caches ask for those of others every few seconds, and
take out what they have that is older. A cache that could not ask for longer than removals are kept has missed some, and forgets everything:
a cache may forget, but must not remember.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Protocol

from services.cache.entry_filter import EntryFilter
from services.runtime import logs
from services.runtime.clock import Clock

log = logs.get(__name__)

POLL_S = 2.0
# How far the clocks of caches may be apart: what was kept so shortly after a removal is taken for older.
SKEW_US = 5_000_000
# How long what was told may take to be seen.
_OVERLAP_US = 60_000_000
KEPT_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Removal:
    """One removal; `at_us` is when the cluster was told, in microseconds since 1970-01-01 UTC."""

    removal_id: str
    at_us: int
    chosen: EntryFilter

    @property
    def reach(self) -> EntryFilter:
        """What it is about in the memory of others: what came later is there by right."""
        latest_us = self.at_us + SKEW_US
        until_us = self.chosen.created_until_us
        return replace(self.chosen, created_until_us=latest_us if until_us is None else min(until_us, latest_us))


class Told(Protocol):
    """Where removals are told."""

    async def removals(self, since_us: int) -> list[Removal] | None:
        """What others have removed since then; None when nobody can say."""
        ...


class Forgetful(Protocol):
    """What removals are applied to."""

    def forget(self, chosen: EntryFilter) -> None: ...


class RemovalWatch:
    """Use as an async context manager."""

    def __init__(self, told: Told, memory: Forgetful, clock: Clock, poll_s: float = POLL_S) -> None:
        self._told = told
        self._memory = memory
        self._clock = clock
        self._poll_s = poll_s
        self._seen: dict[str, int] = {}

    async def __aenter__(self) -> "RemovalWatch":
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        asked_us = self._now_us()
        while True:
            now_us = self._now_us()
            since_us = asked_us - _OVERLAP_US
            found = await self._told.removals(since_us)
            if found is not None:
                self._apply(found, since_us, has_missed=now_us - asked_us >= KEPT_US - _OVERLAP_US)
                asked_us = now_us
            await asyncio.sleep(self._poll_s)

    def _apply(self, found: list[Removal], since_us: int, has_missed: bool) -> None:
        if has_missed:
            log.warning("cache_removals_missed")
            self._memory.forget(EntryFilter())
        for removal in found:
            if removal.removal_id not in self._seen:
                self._memory.forget(removal.reach)
        self._seen = {removal_id: at_us for removal_id, at_us in self._seen.items() if at_us >= since_us}
        self._seen |= {removal.removal_id: removal.at_us for removal in found}

    def _now_us(self) -> int:
        return int(self._clock.now() * 1e6)
