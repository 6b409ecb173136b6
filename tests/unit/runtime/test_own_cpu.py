"""What of a process' time falls to a request adds up to what the process used."""

from dataclasses import dataclass

import pytest

from services.runtime.own_cpu import FIRST_NS, NO_CPU, SECOND_NS, OwnCpu

MS = 10**6


@dataclass
class Process:
    """A process that a test makes busy."""

    used: int = 5 * SECOND_NS
    now: int = 100 * SECOND_NS

    def __post_init__(self) -> None:
        self.own = OwnCpu(lambda: self.used, lambda: self.now)

    def serve(self, requests: int, each_ns: int, per_second: int) -> int:
        """So many requests, evenly over time. Gives what they took of it all."""
        taken = 0
        for _ in range(requests):
            self.now += SECOND_NS // per_second
            self.used += each_ns
            taken += self.own.take_ns()
        return taken


@pytest.mark.parametrize("each_ns", [MS // 10, 3 * MS])
def test_requests_take_what_the_process_uses(each_ns: int) -> None:
    process = Process()
    process.serve(2000, each_ns, per_second=200)
    assert process.serve(2000, each_ns, per_second=200) == pytest.approx(2000 * each_ns, rel=0.01)


def test_a_change_is_followed_within_some_hundred_requests() -> None:
    process = Process()
    process.serve(1000, MS, per_second=200)
    process.serve(400, 5 * MS, per_second=200)
    assert process.serve(100, 5 * MS, per_second=200) == pytest.approx(500 * MS, rel=0.01)


def test_what_is_used_while_nothing_ends_is_nobodys() -> None:
    process = Process()
    process.serve(1000, MS, per_second=200)
    process.now += 3600 * SECOND_NS
    process.used += 60 * SECOND_NS
    assert process.serve(200, MS, per_second=200) == pytest.approx(200 * MS, rel=0.02)


def test_before_there_is_a_measurement_a_request_takes_a_millisecond() -> None:
    assert Process().own.take_ns() == FIRST_NS
    assert NO_CPU.take_ns() == 0
