"""What of this process' processor time falls to a request: the share that the books turn into the gateway's own joules.

Whoever ends a request takes its share. Once in a second the time that the process used is divided by the requests that ended in it, and a
running mean over STEADY requests is what the next ones take: a look at the clock for each, and one more call of the system a second. All
threads count. A second or more in which nothing ended is nobody's: what a process does when it is idle is not a request's.
"""

from collections.abc import Callable
from typing import Final

SECOND_NS: Final = 10**9
# Beyond so long a time between two looks the process had nothing to do in part of it.
IDLE_NS: Final = 2 * SECOND_NS
STEADY: Final = 100
# Until there is a measurement.
FIRST_NS: Final = 1_000_000


class OwnCpu:
    """`cpu_ns` gives what the process has used, `now_ns` a monotonic time, both in nanoseconds."""

    def __init__(self, cpu_ns: Callable[[], int], now_ns: Callable[[], int], first_ns: int = FIRST_NS) -> None:
        self._cpu_ns = cpu_ns
        self._now_ns = now_ns
        self._share_ns = float(first_ns)
        self._count = 0
        self._since_ns = now_ns()
        self._used_ns = cpu_ns()

    def take_ns(self) -> int:
        """What falls to a request that ends now, in nanoseconds of a core."""
        self._count += 1
        now = self._now_ns()
        if now - self._since_ns >= SECOND_NS:
            self._look(now)
        return round(self._share_ns)

    def _look(self, now: int) -> None:
        used = self._cpu_ns()
        if now - self._since_ns < IDLE_NS:
            each = (used - self._used_ns) / self._count
            self._share_ns += (each - self._share_ns) * min(1.0, self._count / STEADY)
        self._count, self._since_ns, self._used_ns = 0, now, used


# For a part of a process whose time somebody else takes.
NO_CPU: Final = OwnCpu(lambda: 0, lambda: 0, 0)
