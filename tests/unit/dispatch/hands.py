"""A clock for what never sleeps: the test holds its hands."""


class Hands:
    """Both readings are `time`."""

    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> float:
        return self.time
