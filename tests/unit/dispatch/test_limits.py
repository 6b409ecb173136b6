"""Own and learned limits, with time as an argument."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulegate.chat.v1 import chat_pb2
from services.dispatch.keys import Key, KeyRing
from services.dispatch.limits import MAX_LEARNED, MINUTE_S, UNSAID_S, Limiter, ProviderLimits, estimate_tokens
from services.dispatch.rate_headers import Quota, Rate, Rates
from services.runtime.secret import Secret


def keys(count: int) -> KeyRing:
    return KeyRing([Key(Secret(f"key-{index}")) for index in range(count)])


def left(
    amount: float, reset_s: float | None = 30, *, quota: Quota = Quota.REQUESTS, period: str = "", limit: float | None = None
) -> Rates:
    return {(quota, period): Rate(limit, amount, reset_s)}


def admitted(limiter: Limiter, times: list[float], tokens: int = 0) -> list[float]:
    """When calls went out that were wanted at these times; what must wait is given up."""
    gone: list[float] = []
    for now in times:
        if limiter.wait_s(now, tokens) == 0:
            limiter.take(now, tokens)
            gone.append(now)
    return gone


@given(
    limit=st.integers(1, 8),
    gaps=st.lists(st.floats(0, 90, allow_nan=False) | st.sampled_from([0.0, 59.999, 60.0, 1e-9]), min_size=1, max_size=80),
)
def test_no_window_of_a_minute_has_more_requests_than_the_limit(limit: int, gaps: list[float]) -> None:
    times = [1000.0]
    for gap in gaps:
        times.append(times[-1] + gap)
    gone = admitted(Limiter(ProviderLimits(requests_per_minute=limit)), times)
    for start in gone:
        assert sum(start <= time < start + MINUTE_S for time in gone) <= limit
    # Nor are calls kept back without need.
    for time in set(times) - set(gone):
        assert sum(time - MINUTE_S < earlier <= time for earlier in gone) == limit


def test_the_wait_is_what_it_takes() -> None:
    limiter = Limiter(ProviderLimits(requests_per_minute=2))
    limiter.take(100)
    limiter.take(110)
    assert limiter.wait_s(130) == 30
    assert limiter.wait_s(160) == 0


def test_a_second_and_a_minute_hold_together() -> None:
    limiter = Limiter(ProviderLimits(requests_per_second=2, requests_per_minute=3))
    assert admitted(limiter, [0, 0.1, 0.2, 1.0, 1.1, 59.9, 60.0]) == [0, 0.1, 1.0, 60.0]


def test_less_than_one_call_a_second_is_one_in_several() -> None:
    assert admitted(Limiter(ProviderLimits(requests_per_second=0.5)), [0, 1, 1.9, 2, 3, 4]) == [0, 2, 4]


def test_tokens_fill_up_evenly() -> None:
    limiter = Limiter(ProviderLimits(tokens_per_minute=600))
    limiter.take(0, 600)
    assert limiter.wait_s(0, 100) == pytest.approx(10)
    assert limiter.wait_s(10, 100) == 0


def test_what_a_call_did_not_take_comes_back() -> None:
    limiter = Limiter(ProviderLimits(tokens_per_minute=600))
    limiter.take(0, 600)
    limiter.settle(1, 600, 150)
    assert limiter.wait_s(1, 450) == 0


def test_what_an_answer_took_unforeseen_is_owed() -> None:
    limiter = Limiter(ProviderLimits(tokens_per_minute=600))
    limiter.take(0, 10)
    limiter.settle(0, 10, 1200)
    assert limiter.wait_s(0) == pytest.approx(60.1)


def test_a_call_larger_than_the_bucket_goes_out_when_that_is_full() -> None:
    limiter = Limiter(ProviderLimits(tokens_per_minute=600))
    assert limiter.wait_s(0, 5000) == 0
    limiter.take(0, 300)
    assert limiter.wait_s(0, 5000) == pytest.approx(30)


@pytest.mark.parametrize("quota", Quota)
def test_a_limit_with_nothing_left_keeps_calls_back_until_it_starts_anew(quota: Quota) -> None:
    limiter = Limiter()
    limiter.learn(100, left(0, 30, quota=quota), "m")
    assert limiter.wait_s(101, 0, "m") == 29
    assert limiter.wait_s(101, 0, "other") == 0
    assert limiter.wait_s(130, 0, "m") == 0


def test_calls_that_go_out_at_once_share_what_is_left() -> None:
    limiter = Limiter()
    limiter.learn(0, left(3), "m")
    for _ in range(3):
        assert limiter.wait_s(1, 0, "m") == 0
        limiter.take(1, 0, "m")
    assert limiter.wait_s(1, 0, "m") == 29


def test_a_call_that_needs_more_tokens_than_are_left_waits_and_a_smaller_one_does_not() -> None:
    limiter = Limiter()
    limiter.learn(0, left(500, 20, quota=Quota.TOKENS, limit=1000), "m")
    assert limiter.wait_s(0, 501, "m") == 20
    assert limiter.wait_s(0, 500, "m") == 0


def test_a_call_larger_than_the_whole_limit_is_not_kept_back_while_all_is_left() -> None:
    limiter = Limiter()
    limiter.learn(0, left(1000, 20, quota=Quota.TOKENS, limit=1000), "m")
    assert limiter.wait_s(0, 5000, "m") == 0


@pytest.mark.parametrize(("period", "reset_s", "waits"), [("day", 33_000, MINUTE_S), ("minute", None, MINUTE_S), ("", None, UNSAID_S)])
def test_a_learned_wait_is_bounded(period: str, reset_s: float | None, waits: float) -> None:
    limiter = Limiter()
    limiter.learn(0, left(0, reset_s, period=period), "m")
    assert limiter.wait_s(0, 0, "m") == waits


def test_a_key_at_its_limit_leaves_the_calls_to_the_others() -> None:
    limiter = Limiter(keys=keys(2))
    limiter.learn(0, left(0, 30), "m", key=0)
    assert limiter.wait_s(0, 0, "m") == 0
    assert [limiter.choose(0, draw, 0, "m") for draw in (0.0, 0.5, 0.99)] == [1, 1, 1]
    limiter.learn(0, left(0, 12), "m", key=1)
    assert limiter.choose(0, 0.0, 0, "m") is None
    assert limiter.wait_s(0, 0, "m") == 12


def test_a_told_pause_of_the_only_key_is_a_wait_and_a_guess_is_none() -> None:
    limiter = Limiter(keys=keys(1))
    limiter.keys.refused(0, "m", 0, 401)
    assert limiter.wait_s(1, 0, "m") == 0
    limiter.keys.refused(0, "m", 0, 429, 9)
    assert limiter.wait_s(1, 0, "m") == 8
    assert limiter.wait_s(9, 0, "m") == 0


def test_tokens_are_estimated_only_where_they_count() -> None:
    ask = chat_pb2.ChatRequest(messages=[chat_pb2.Message(text="x" * 330)], max_tokens=50)
    limiter = Limiter()
    assert limiter.estimate(ask) == 0
    limiter.learn(0, left(100, quota=Quota.TOKENS))
    assert limiter.estimate(ask) == estimate_tokens(ask) == 151


def test_parts_and_bounds_are_in_the_estimate_and_nonsense_is_not() -> None:
    parts = chat_pb2.ContentParts(parts=[chat_pb2.ContentPart(text="x" * 33), chat_pb2.ContentPart(text="x" * 33)])
    ask = chat_pb2.ChatRequest(messages=[chat_pb2.Message(parts=parts)], max_tokens=-5)
    assert estimate_tokens(ask) == 21


def test_what_invented_models_taught_does_not_pile_up() -> None:
    limiter = Limiter()
    for number in range(2 * MAX_LEARNED):
        limiter.learn(0, left(0), f"model-{number}")
    assert len(limiter._learned) == MAX_LEARNED


def test_requests_that_are_left_are_those_of_the_tightest_limit() -> None:
    assert Limiter().requests_left(0) is None
    limiter = Limiter(ProviderLimits(requests_per_second=2, requests_per_minute=3))
    assert limiter.requests_left(0) == 2
    limiter.take(0)
    assert [limiter.requests_left(now) for now in (0, 1, 60)] == [1, 2, 2]
    limiter.take(1)
    limiter.take(2)
    assert limiter.requests_left(3) == 0


def test_requests_that_are_left_follow_the_answers_as_long_as_they_hold() -> None:
    limiter = Limiter()
    limiter.learn(0, left(7, 30), "m")
    limiter.learn(0, left(100, 30, quota=Quota.TOKENS), "m")
    limiter.take(1, model="m")
    assert [limiter.requests_left(now) for now in (1, 29, 30)] == [6, 6, None]
