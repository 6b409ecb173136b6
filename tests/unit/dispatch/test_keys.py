from collections import Counter

import pytest

from services.dispatch.keys import LONG_S, LONGEST_S, MAX_PAUSES, SHORT_S, Key, KeyRing
from services.runtime.secret import Secret


def ring(*weights: float) -> KeyRing:
    return KeyRing([Key(Secret(f"key-{index}"), weight) for index, weight in enumerate(weights)])


def chosen(keys: KeyRing, now: float = 0.0, model: str = "m") -> Counter[int | None]:
    """Which keys a thousand evenly spread draws give."""
    return Counter(keys.choose(now, step / 1000, model) for step in range(1000))


def test_keys_are_used_in_proportion_to_their_weights() -> None:
    assert chosen(ring(1, 2, 7)) == {0: 100, 1: 200, 2: 700}


def test_a_provider_without_a_key_can_be_called() -> None:
    keys = ring()
    assert keys.choose(0, 0.9, "m") == 0
    keys.refused(0, "m", 0, 429, 5)
    assert (keys.choose(1, 0.9, "m"), keys.wait_s(1, "m")) == (None, 4)


@pytest.mark.parametrize("status", [401, 402])
def test_a_bad_key_is_left_out_for_all_models_and_comes_back(status: int) -> None:
    keys = ring(1, 1)
    keys.refused(0, "m", 100, status)
    assert chosen(keys, 100) == chosen(keys, 100 + LONG_S - 1, "other") == {1: 1000}
    assert chosen(keys, 100 + LONG_S) == {0: 500, 1: 500}


@pytest.mark.parametrize("status", [403, 429])
def test_a_key_that_may_not_use_a_model_still_serves_others(status: int) -> None:
    keys = ring(1, 1)
    keys.refused(0, "m", 0, status, 10)
    assert chosen(keys, 1, "m") == {1: 1000}
    assert chosen(keys, 1, "other") == {0: 500, 1: 500}


def test_an_empty_account_is_told_from_a_rate_by_its_code() -> None:
    keys = ring(1, 1)
    keys.refused(0, "m", 0, 429, 1, "insufficient_quota")
    assert chosen(keys, LONG_S - 1, "other") == {1: 1000}


def test_the_providers_word_sets_how_long() -> None:
    keys = ring(1, 1)
    keys.refused(0, "m", 0, 429, 7)
    assert chosen(keys, 6.9) == {1: 1000}
    assert chosen(keys, 7) == {0: 500, 1: 500}


@pytest.mark.parametrize(("status", "first", "most"), [(429, SHORT_S, 60.0), (401, LONG_S, LONGEST_S), (403, LONG_S, LONGEST_S)])
def test_a_guess_doubles_with_each_refusal_in_a_row_up_to_a_bound(status: int, first: float, most: float) -> None:
    keys, now, waits = ring(1), 0.0, []
    for _ in range(12):
        keys.refused(0, "m", now, status)
        waits.append(keys.wait_s(now, "m"))
        now += waits[-1]
    assert waits[:3] == [first, 2 * first, 4 * first]
    assert waits[-1] == most


def test_a_success_ends_the_growth() -> None:
    keys = ring(1)
    keys.refused(0, "m", 0, 401)
    keys.accepted(0, "m", 60)
    keys.refused(0, "m", 61, 401)
    assert keys.wait_s(61, "m") == LONG_S


def test_calls_refused_together_count_once() -> None:
    keys = ring(1)
    for _ in range(50):
        keys.refused(0, "m", 0, 429)
    assert keys.wait_s(0, "m") == SHORT_S
    keys.refused(0, "m", SHORT_S, 429)
    assert keys.wait_s(SHORT_S, "m") == 2 * SHORT_S


def test_when_all_are_set_aside_by_guess_the_soonest_back_is_used() -> None:
    keys = ring(1, 1)
    keys.refused(0, "m", 0, 401)
    keys.refused(1, "m", 10, 401)
    assert chosen(keys, 20) == {0: 1000}
    assert keys.wait_s(20, "m") == LONG_S - 20
    assert keys.usable_count(20) == 0


def test_a_limit_that_is_run_into_again_and_again_is_kept_to_until_a_call_passes() -> None:
    keys = ring(1)
    called = []
    for tick in range(600):
        now = tick / 10
        if keys.choose(now, 0.5, "m") is not None:
            called.append(now)
            keys.refused(0, "m", now, 429)
    # Guesses of 1 s and 2 s are not held; then those of 4, 8, 16, 32 s are: a provider that refuses for a minute gets few calls.
    assert [now for now in called if now >= 3] == [3.0, 7.0, 15.0, 31.0]
    assert len(called) == 30 + 4
    assert keys.choose(63, 0.5, "m") == 0
    keys.accepted(0, "m", 63)
    keys.refused(0, "m", 63, 429)
    assert keys.choose(63, 0.5, "m") == 0


def test_when_the_provider_said_so_for_all_none_is_used_and_the_soonest_is_told() -> None:
    keys = ring(1, 1)
    keys.refused(0, "m", 0, 429, 30)
    keys.refused(1, "m", 0, 429, 12)
    assert keys.choose(2, 0.5, "m") is None
    assert keys.wait_s(2, "m") == 10
    assert keys.choose(2, 0.5, "other") is not None


def test_within_a_call_only_a_usable_key_that_was_not_tried_follows() -> None:
    keys = ring(1, 1, 1)
    keys.refused(0, "m", 0, 401)
    keys.refused(2, "m", 0, 401)
    assert keys.choose(1, 0.99, "m", tried=(0,)) == 1
    assert keys.choose(1, 0.99, "m", tried=(0, 1)) is None


def test_a_late_success_does_not_undo_what_the_provider_said() -> None:
    keys = ring(1)
    keys.refused(0, "m", 0, 429, 30)
    keys.accepted(0, "m", 1)
    assert keys.wait_s(1, "m") == 29


def test_pauses_of_invented_models_do_not_pile_up() -> None:
    keys = ring(1)
    for number in range(3 * MAX_PAUSES):
        keys.refused(0, f"model-{number}", number / 1000, 403)
    assert len(keys._pauses) <= MAX_PAUSES


def test_no_key_is_left_in_a_text() -> None:
    keys = ring(1, 1)
    assert keys.redact("key-0, then key-1") == "***, then ***"
    assert "key-0" not in repr(keys.keys)
