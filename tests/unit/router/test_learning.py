import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.complexity import Complexity, quality
from services.router.learning import (
    DISCOUNT,
    MOST_EXPLORED,
    PRIOR_WEIGHT,
    Arm,
    Contender,
    Explorer,
    Posteriors,
    Signal,
    cluster_of,
    proved_worse,
)

MEDIUM = Complexity(score=0.0, weak_suffices=0.75, weak_quality=0.6, strong_quality=0.8)
ARM = Arm(cluster_of(MEDIUM), "lab", "small")
GOODNESS = st.floats(0, 1)


@given(promised=st.floats(0.01, 0.99), seen=st.lists(GOODNESS, max_size=50))
def test_a_belief_lies_between_what_was_promised_and_what_was_seen(promised: float, seen: list[float]) -> None:
    posteriors = Posteriors()
    for goodness in seen:
        posteriors.observe(ARM, goodness)
    belief = posteriors.belief(ARM, promised)
    assert min([promised, *seen]) - 1e-9 <= belief.mean <= max([promised, *seen]) + 1e-9
    assert belief.good > 0
    assert belief.bad > 0
    assert belief.weight <= PRIOR_WEIGHT + len(seen) + 1e-9


@given(seen=st.lists(GOODNESS, max_size=30), better=GOODNESS, worse=GOODNESS)
def test_a_better_outcome_never_makes_a_model_look_worse(seen: list[float], better: float, worse: float) -> None:
    better, worse = max(better, worse), min(better, worse)
    means = []
    for last in (better, worse):
        posteriors = Posteriors()
        for goodness in [*seen, last]:
            posteriors.observe(ARM, goodness)
        means.append(posteriors.belief(ARM, 0.5).mean)
    assert means[0] >= means[1]


def test_the_prior_is_worth_twenty_observations() -> None:
    posteriors = Posteriors()
    for _ in range(20):
        posteriors.observe(ARM, 1.0)
    assert posteriors.belief(ARM, 0.5).mean == pytest.approx(0.75, abs=0.005)


def test_what_was_seen_long_ago_fades_and_evidence_is_bounded() -> None:
    posteriors = Posteriors()
    for _ in range(20_000):
        posteriors.observe(ARM, 1.0)
    assert posteriors.belief(ARM, 0.5).weight <= PRIOR_WEIGHT + 1 / (1 - DISCOUNT) + 1e-6
    for _ in range(5000):
        posteriors.observe(ARM, 0.0)
    assert posteriors.belief(ARM, 0.5).mean < 0.05


def test_clusters_and_models_learn_apart_and_the_least_recent_are_forgotten() -> None:
    posteriors = Posteriors(most_arms=2)
    arms = [Arm(0, "lab", "small"), Arm(1, "lab", "small"), Arm(0, "lab", "large")]
    posteriors.observe(arms[0], 0.0)
    posteriors.observe(arms[1], 1.0)
    assert posteriors.belief(arms[0], 0.5).mean < 0.5 < posteriors.belief(arms[1], 0.5).mean
    posteriors.observe(arms[0], 0.0)
    posteriors.observe(arms[2], 1.0)
    assert len(posteriors) == 2
    assert posteriors.belief(arms[1], 0.5).mean == 0.5
    assert posteriors.belief(arms[0], 0.5).mean < 0.5


@pytest.mark.parametrize(("goodness", "weight"), [(-0.1, 1.0), (1.1, 1.0), (float("nan"), 1.0), (0.5, 0.0), (0.5, 2.0)])
def test_what_is_no_outcome_is_refused_and_changes_nothing(goodness: float, weight: float) -> None:
    posteriors = Posteriors()
    with pytest.raises(ValueError, match="goodness"):
        posteriors.observe(ARM, goodness, weight)
    assert len(posteriors) == 0


@pytest.mark.parametrize("signal", [signal for signal in Signal if signal != Signal.WHOLE])
def test_an_answer_that_ended_badly_counts_against_its_model(signal: Signal) -> None:
    posteriors = Posteriors()
    posteriors.observe(ARM, signal.goodness, signal.weight)
    assert posteriors.belief(ARM, 0.6).mean < 0.6


@given(seed=st.integers(0, 2**32), share=st.floats(0, MOST_EXPLORED), willing=st.lists(st.booleans(), max_size=400))
def test_tries_are_within_their_share_at_every_moment(seed: int, share: float, willing: list[bool]) -> None:
    explorer = Explorer(Posteriors(), random.Random(seed), share)
    contenders = [Contender("lab", f"m{n}", 2) for n in range(4)]
    decided = explored = 0
    for may_explore in willing:
        proposal = explorer.propose(MEDIUM, contenders, may_explore=may_explore)
        assert may_explore or not proposal.explores
        decided += may_explore
        explored += proposal.explores
        assert explored <= share * decided
        assert 0 <= proposal.place < len(contenders)


def test_tries_go_to_what_has_proved_better_and_not_to_what_has_proved_worse() -> None:
    posteriors = Posteriors()
    cluster = cluster_of(MEDIUM)
    contenders = [Contender("lab", name, 3) for name in ("chosen", "worse", "better")]
    for name, goodness in (("chosen", 0.5), ("worse", 0.0), ("better", 1.0)):
        for _ in range(300):
            posteriors.observe(Arm(cluster, "lab", name), goodness)
    explorer = Explorer(posteriors, random.Random(4))
    places = [explorer.propose(MEDIUM, contenders).place for _ in range(5000)]
    assert places.count(1) == 0
    assert places.count(2) == 5000 * MOST_EXPLORED


def test_a_share_above_the_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        Explorer(Posteriors(), random.Random(1), 0.05)


def test_where_nothing_was_seen_the_tier_decides() -> None:
    belief = Posteriors().belief(ARM, quality(4, MEDIUM))
    assert belief.mean == pytest.approx(0.8)
    assert belief.weight == PRIOR_WEIGHT


def test_a_long_time_without_tries_is_not_made_up_for() -> None:
    """However many decisions had nothing to try, no fifty of them in a row hold two tries."""
    explorer = Explorer(Posteriors(), random.Random(8))
    for _ in range(10_000):
        explorer.propose(MEDIUM, [Contender("lab", "only", 3)])
    contenders = [Contender("lab", f"m{n}", 3) for n in range(4)]
    tried = [number for number in range(2000) if explorer.propose(MEDIUM, contenders).explores]
    assert len(tried) > 10
    assert min(later - earlier for earlier, later in pairwise(tried)) >= 1 / MOST_EXPLORED


def test_who_answers_worse_is_proved_so_by_what_was_seen_and_never_by_a_promise() -> None:
    posteriors = Posteriors()
    contenders = [Contender("lab", name, tier) for name, tier in (("weak", 1), ("strong", 5), ("bad", 3), ("good", 3))]
    assert proved_worse(posteriors.beliefs(MEDIUM, contenders)) == frozenset()
    for _ in range(200):
        posteriors.observe(Arm(cluster_of(MEDIUM), "lab", "bad"), 0.0)
    assert proved_worse(posteriors.beliefs(MEDIUM, contenders)) == frozenset()
    for _ in range(200):
        posteriors.observe(Arm(cluster_of(MEDIUM), "lab", "good"), 1.0)
    assert proved_worse(posteriors.beliefs(MEDIUM, contenders)) == {2}


def test_equals_are_seldom_taken_for_worse() -> None:
    chance = random.Random(20261121)
    wrong = 0
    for _ in range(200):
        posteriors = Posteriors()
        for name in ("one", "other"):
            for _ in range(150):
                posteriors.observe(Arm(cluster_of(MEDIUM), "lab", name), float(chance.random() < 0.7))
        wrong += bool(proved_worse(posteriors.beliefs(MEDIUM, [Contender("lab", "one", 3), Contender("lab", "other", 3)])))
    assert wrong <= 2
