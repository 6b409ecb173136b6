"""Limits against brute force: no 60 seconds ever have more in them than is allowed, and who waits as told is let in."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from joulegate.ledger.v1.budget_pb2 import BudgetWindow
from services.ledger.rate_windows import MINUTE, SECOND, TICK, RateLimits, RateState, decode
from services.ledger.windows import DAY, Window, month_start, next_month

STEPS = st.integers(0, 40 * SECOND)
MOMENTS = st.integers(0, 4_000_000_000 * SECOND)


@given(st.lists(st.tuples(STEPS, st.integers(1, 50)), min_size=1, max_size=60), st.integers(1, 6), st.integers(50, 120))
def test_no_minute_has_more_than_is_allowed_and_whoever_waits_is_let_in(calls: list[tuple[int, int]], requests: int, tokens: int) -> None:
    limits, state, now = RateLimits(requests, tokens), RateState(), 10**12
    let_in: list[tuple[int, int]] = []
    for step, size in calls:
        now += step
        refusal = state.refusal(limits, now, size)
        if refusal is not None:
            # Not before its time by more than a tick, and not after it.
            assert refusal.wait is not None and 0 < refusal.wait <= MINUTE + TICK
            in_minute = [each for at, each in let_in if at > now + refusal.wait - TICK - MINUTE - 1]
            now += refusal.wait
            assert len(in_minute) >= requests or sum(in_minute) + size > tokens or refusal.wait <= TICK
            again = state.refusal(limits, now, size)
            # Another limit may be in the way then.
            if again is not None:
                assert again.limit != refusal.limit
                continue
        state.take(now, size)
        let_in.append((now, size))
    for start, _ in let_in:
        inside = [size for at, size in let_in if start <= at < start + MINUTE]
        assert len(inside) <= requests and sum(inside) <= tokens


@given(st.lists(STEPS, min_size=1, max_size=80), st.integers(1, 8), st.floats(0.05, 5))
def test_bucket_lets_in_what_it_has_and_what_came_back(steps: list[int], capacity: int, refill: float) -> None:
    limits, state, now = RateLimits(None, None, capacity, refill), RateState(), 10**12
    let_in: list[int] = []
    for step in steps:
        now += step
        if (refusal := state.refusal(limits, now, 0)) is not None:
            assert refusal.wait is not None
            assert state.refusal(limits, now + refusal.wait - 1, 0) is not None
            now += refusal.wait
            assert state.refusal(limits, now, 0) is None
        state.fill(limits, now, 1)
        let_in.append(now)
    for (first, begin), (last, end) in itertools.combinations(enumerate(let_in), 2):
        assert last - first + 1 <= capacity + (end - begin) / limits.interval + 1e-6


@given(st.lists(st.tuples(STEPS, st.integers(0, 50)), max_size=40))
def test_state_is_the_same_after_it_was_kept(calls: list[tuple[int, int]]) -> None:
    limits, state, now = RateLimits(10**6, 10**6, 100, 1.0), RateState(), 10**12
    for step, size in calls:
        now += step
        state.take(now, size)
        state.fill(limits, now, 1)
    kept = decode(state.encode(), now + TICK)
    assert kept.standing(limits, now + TICK) == state.standing(limits, now + TICK)


@given(MOMENTS, st.integers(60, 366 * 86_400))
def test_rolling_window_counts_whatever_could_be_in_one_with_the_moment(at: int, length_s: int) -> None:
    window = Window(BudgetWindow.BUDGET_WINDOW_ROLLING, length_s)
    length = length_s * SECOND
    for other in (at, at - length + 1, at + length - 1, at - length // 2):
        if other >= 0:
            assert window.counts(window.bucket(other), at)
    # What has left does not count, and all has left a sixtieth after its time.
    bucket = window.bucket(at)
    assert window.counts(bucket, window.leaves(bucket) - 1) and not window.counts(bucket, window.leaves(bucket))
    assert window.leaves(bucket) - at <= length + window.width
    assert window.width <= length // 60 + SECOND


@given(MOMENTS)
def test_calendar_windows_are_days_and_months(at: int) -> None:
    day, month = Window(BudgetWindow.BUDGET_WINDOW_DAY), Window(BudgetWindow.BUDGET_WINDOW_MONTH)
    assert day.bucket(at) <= at < day.leaves(day.bucket(at)) == day.bucket(at) + DAY
    start = month.bucket(at)
    assert start <= at < month.leaves(start) == next_month(start)
    assert month_start(next_month(start)) == next_month(start) and 28 <= (next_month(start) - start) // DAY <= 31
