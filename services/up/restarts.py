"""When a child that ended may start again: after twice as long each time, and at once again after a calm while."""

from typing import Final

FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 10.0
CALM_S: Final = 30.0
ATTEMPTS: Final = 5


class Restarts:
    """The history of one child. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._ends_in_a_row = 0
        self._healthy_since: float | None = None
        self._was_healthy = False

    def became_healthy(self, now: float) -> None:
        self._healthy_since = now
        self._was_healthy = True

    def ended(self, now: float) -> float:
        """Books an end; gives the seconds to wait before the next start."""
        if self._healthy_since is not None and now - self._healthy_since >= CALM_S:
            self._ends_in_a_row = 0
        self._healthy_since = None
        delay = min(FIRST_DELAY_S * 2.0 ** min(self._ends_in_a_row, 16), LONGEST_DELAY_S)
        self._ends_in_a_row += 1
        return delay

    @property
    def was_healthy(self) -> bool:
        return self._was_healthy

    @property
    def is_hopeless(self) -> bool:
        """Whether the child was tried often enough and never came up."""
        return not self._was_healthy and self._ends_in_a_row >= ATTEMPTS
