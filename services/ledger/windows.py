"""The times that budgets are for, in nanoseconds since 1970, UTC.

What is spent is added up in buckets: a calendar window is one, a rolling window is made of sixty. Who asks for a moment is told which
buckets count for a request that begins then. For a rolling window those are all that any window around the moment could reach: a bucket
counts until the whole of it has left, and what begins later counts too, since routers' clocks differ. So no window of that length ever
has more in it than was allowed, whatever the order in which requests come.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

from joulegate.ledger.v1.budget_pb2 import BudgetWindow

SECOND: Final = 10**9
DAY: Final = 86_400 * SECOND
MIN_ROLLING_S: Final = 60
MAX_ROLLING_S: Final = 366 * 86_400
SUB_BUCKETS: Final = 60
_DAY: Final = BudgetWindow.BUDGET_WINDOW_DAY
_MONTH: Final = BudgetWindow.BUDGET_WINDOW_MONTH


class Window(NamedTuple):
    """A kind of time. `rolling_s` is the length of a rolling one, 0 for the others."""

    kind: int
    rolling_s: int = 0

    @property
    def is_rolling(self) -> bool:
        return self.rolling_s > 0

    @property
    def width(self) -> int:
        """Of the buckets of a rolling window."""
        return -(-self.rolling_s // SUB_BUCKETS) * SECOND

    def bucket(self, at: int) -> int:
        """When the bucket begins that a moment is in."""
        if self.kind == _DAY:
            return at - at % DAY
        if self.kind == _MONTH:
            return month_start(at)
        return at - at % self.width

    def counts(self, bucket: int, at: int) -> bool:
        """Whether what is in a bucket counts for a request that begins at a moment."""
        if not self.is_rolling:
            return bucket == self.bucket(at)
        length = self.rolling_s * SECOND
        return at - length < bucket + self.width and bucket < at + length

    def leaves(self, bucket: int) -> int:
        """From when on a bucket counts no more."""
        if self.kind == _DAY:
            return bucket + DAY
        if self.kind == _MONTH:
            return next_month(bucket)
        return bucket + self.width + self.rolling_s * SECOND

    def oldest(self, at: int) -> int:
        """The oldest bucket that counts at a moment."""
        if not self.is_rolling:
            return self.bucket(at)
        return self.bucket(max(0, at - self.rolling_s * SECOND))


def month_start(at: int) -> int:
    """When the month of a moment began."""
    return _month_of(at // DAY)


@lru_cache(maxsize=1024)
def _month_of(day: int) -> int:
    moment = datetime.fromtimestamp(day * (DAY // SECOND), UTC)
    return int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp()) * SECOND


def next_month(start: int) -> int:
    """When the month after one ends that begins at `start`."""
    return month_start(start + 31 * DAY)


def when_fits(window: Window, used: Iterable[tuple[int, int]], at: int, excess: int) -> int | None:
    """When so much will have left, of amounts by bucket; None when even all of it is not enough."""
    for bucket, amount in sorted(used):
        if window.counts(bucket, at):
            excess -= amount
            if excess <= 0:
                return window.leaves(bucket)
    return None


def months(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The months from the one of `start` up to the one of `end`: when each begins and ends."""
    start = month_start(start)
    while start <= end:
        after = next_month(start)
        yield start, after
        start = after
