"""Old rows go: from the front of their chain, batch by batch, and what they came to stays.

A row goes when all that were linked before it are old as well, so one of a request that was dated in the future holds up what came after
it, until then. A clock that jumps makes rows look older than they are: then nothing goes before the next look finds it steady.
"""

import asyncio
from concurrent.futures import Executor
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from services.ledger import metrics
from services.ledger.store import TOTALS_ROWS, Writer
from services.runtime import logs
from services.runtime.clock import Clock

log = logs.get(__name__)

INTERVAL_S: Final = 3600.0
# More than clocks are set by when they are kept right, less than a day.
_JUMP_S: Final = 600.0
_DAY_S: Final = 86_400.0


class Retention:
    """Looks for old rows, on the thread of the writer. None are old enough without a number of days."""

    def __init__(self, writer: Writer, thread: Executor, clock: Clock, days: float | None) -> None:
        self._writer = writer
        self._thread = thread
        self._clock = clock
        self._days = days
        self._offset_s = self._offset()

    async def run(self) -> None:
        """Looks every hour, for ever."""
        while self._days is not None:
            await asyncio.sleep(INTERVAL_S)
            await self.look(self._days)

    async def look(self, days: float) -> int:
        """Deletes what is older than so many days, and gives how many rows that were."""
        before, self._offset_s = self._offset_s, self._offset()
        if abs(self._offset_s - before) > _JUMP_S:
            log.error("clock_jumped", by_s=round(self._offset_s - before), consequence="no old rows are deleted until it is steady")
            return 0
        count = 0
        try:
            for chain in range(1, TOTALS_ROWS + 1):
                count += await self._prune(chain, int((self._clock.now() - days * _DAY_S) * 1e9))
        except SQLAlchemyError as error:
            log.error("old_rows_not_deleted", error=type(error).__name__, cause=str(getattr(error, "orig", None)))
        if count:
            log.info("old_rows_deleted", count=count, days=days)
        return count

    async def _prune(self, chain: int, before_ns: int) -> int:
        loop, total = asyncio.get_running_loop(), 0
        while True:
            now_ns = int(self._clock.now() * 1e9)
            # One task for each batch: commits come in between.
            count = await loop.run_in_executor(self._thread, self._writer.prune, chain, before_ns, now_ns)
            if not count:
                return total
            metrics.DELETED_ROWS.inc(count)
            total += count

    def _offset(self) -> float:
        return self._clock.now() - self._clock.monotonic()
