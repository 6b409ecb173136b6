"""Repeats are a share of the requests, with a floor when there are few."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dispatch.retry_budget import DECAY_S, RetryBudget


def taken(budget: RetryBudget, now: float) -> int:
    """How many repeats can be paid at once."""
    count = 0
    while budget.take(now):
        count += 1
    return count


def test_an_idle_gateway_can_repeat_what_its_floor_has_saved_up() -> None:
    budget = RetryBudget(0.2, floor_per_s=1.0)
    assert taken(budget, 0.0) == 10
    # An hour later it is full again, and no fuller.
    assert taken(budget, 3600.0) == 10


def test_without_a_floor_a_share_of_the_requests_is_repeated() -> None:
    budget = RetryBudget(0.25, floor_per_s=0.0)
    for _ in range(100):
        budget.deposit(5.0)
    assert taken(budget, 5.0) == 25


def test_old_requests_pay_for_nothing() -> None:
    budget = RetryBudget(0.2, floor_per_s=0.0)
    for _ in range(100):
        budget.deposit(0.0)
    assert taken(budget, 5 * DECAY_S) == 0


@pytest.mark.parametrize("rate", [1, 10, 1000])
def test_a_steady_stream_that_always_fails_repeats_at_the_share_and_the_floor(rate: int) -> None:
    budget, seconds = RetryBudget(0.2, floor_per_s=0.5), 100
    repeats = 0
    for number in range(rate * seconds):
        now = number / rate
        budget.deposit(now)
        repeats += budget.take(now)
    assert 0.9 * 0.2 * rate * seconds <= repeats <= 0.2 * rate * seconds + 0.5 * (seconds + DECAY_S)


@given(
    st.lists(st.tuples(st.floats(0.0, 20.0), st.booleans()), max_size=200),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([0.0, 0.2, 1.0]),
)
def test_no_course_of_requests_gets_more_than_the_bound(steps: list[tuple[float, bool]], share: float, floor: float) -> None:
    budget, now, requests, repeats = RetryBudget(share, floor), 0.0, 0, 0
    for wait, is_request in steps:
        now += wait
        if is_request:
            budget.deposit(now)
            requests += 1
        repeats += taken(budget, now)
        assert repeats <= share * requests + floor * (now + DECAY_S) + 1e-9
