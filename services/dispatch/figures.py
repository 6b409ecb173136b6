"""Live figures of one provider: what callers can be told about it."""

from dataclasses import dataclass

# Failures in a row after which calls are no longer expected to succeed.
UNHEALTHY_AFTER = 3
# Weight of the newest call in the moving average.
WEIGHT = 0.2


@dataclass(slots=True)
class Figures:
    """Counts and averages since the start."""

    success_count: int = 0
    failure_count: int = 0
    in_flight_count: int = 0
    failures_in_a_row: int = 0
    first_event_s: float | None = None
    last_success_time: float | None = None
    last_error: str = ""

    @property
    def is_healthy(self) -> bool:
        return self.failures_in_a_row < UNHEALTHY_AFTER

    def saw_first_event(self, after_s: float) -> None:
        average = self.first_event_s
        self.first_event_s = after_s if average is None else average + WEIGHT * (after_s - average)

    def succeeded(self, now: float) -> None:
        self.success_count += 1
        self.failures_in_a_row = 0
        self.last_success_time = now

    def failed(self, message: str) -> None:
        self.failure_count += 1
        self.failures_in_a_row += 1
        self.last_error = message
