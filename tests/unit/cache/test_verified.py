"""Serving below an error bound that the caller sets."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cache.verified import MIN_OBSERVATIONS, Observation, fit, may_serve

_similarities = st.floats(-1, 1, allow_nan=False)
_observations = st.lists(st.builds(Observation, _similarities, st.booleans()), max_size=40)


def drawn(count: int, threshold: float, seed: int = 1) -> list[Observation]:
    """Observations of an entry whose answer is right above a similarity, by a steep sigmoid."""
    chance = random.Random(seed)
    similarities = [chance.uniform(0.6, 1.0) for _ in range(count)]
    return [Observation(s, chance.random() < 1 / (1 + math.exp(-60 * (s - threshold)))) for s in similarities]


def test_entry_without_enough_observations_serves_nothing() -> None:
    right = [Observation(0.95, True)] * (MIN_OBSERVATIONS - 1)
    assert not may_serve(right, 0.99, max_error=0.5)


def test_entry_that_was_right_serves_what_is_very_similar_and_not_what_is_far() -> None:
    observations = drawn(60, threshold=0.8)
    assert may_serve(observations, 0.99, max_error=0.02)
    assert not may_serve(observations, 0.7, max_error=0.02)


def test_nothing_is_served_below_the_nearest_wrong_answer() -> None:
    observations = [*[Observation(0.9, True)] * 50, Observation(0.97, False)]
    assert not may_serve(observations, 0.96, max_error=0.5)


def test_threshold_is_found() -> None:
    assert fit(drawn(64, threshold=0.8)).threshold == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("max_error", [0.01, 0.02, 0.05, 0.1])
def test_share_of_wrong_answers_stays_within_the_bound(max_error: float) -> None:
    chance = random.Random(7)
    served = wrong = 0
    for entry in range(150):
        threshold = chance.uniform(0.7, 0.95)
        observations = drawn(40, threshold, seed=entry)
        for _ in range(40):
            similarity = chance.uniform(0.6, 1.0)
            if may_serve(observations, similarity, max_error):
                served += 1
                wrong += chance.random() >= 1 / (1 + math.exp(-60 * (similarity - threshold)))
    assert served > 100
    assert wrong / served <= max_error


@settings(max_examples=100, deadline=None)
@given(_observations, _similarities, _similarities)
def test_any_observations_have_a_fit_that_rises_with_similarity_around_its_threshold(
    observations: list[Observation], one: float, other: float
) -> None:
    found = fit(observations)
    bound = found.lower_bound(one)
    assert 0 <= bound <= 1
    assert all(math.isfinite(value) for value in (found.log_steepness, found.threshold, *found.covariance))
    # Never surer than the point estimate itself.
    steepness = math.exp(found.log_steepness)
    logit = steepness * (one - found.threshold)
    point = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
    assert bound <= point + 1e-9
