"""Time as an argument: production reads the machine's clocks, tests hold the hands."""

import time
from typing import Protocol


class Clock(Protocol):
    """The two readings of time that anything outside `__main__` may ask for."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back. For durations and deadlines."""
        ...

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC. For what people read and what outlives the process."""
        ...


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    now = staticmethod(time.time)
