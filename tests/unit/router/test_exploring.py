"""Learning that is switched on: what it changes of a choice, and what it never does."""

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from joulegate.chat.v1 import chat_pb2
from services.router import explanation
from services.router.decision import Decision
from services.router.learning import MOST_EXPLORED, Arm, cluster_of
from services.router.policy import parse
from services.router.prospect import Constraints
from services.router.wishes import Wishes
from tests.unit.router.pictures import Scene, Served

ONE = Served("one", "m", usd=1.0, joules_per_token=1.0, tier=3, seconds=1.0)
OTHER = replace(ONE, provider="other")
MANY = 600


def scene(*served: Served, learning: str = "on", **members: Any) -> Scene:
    return Scene(served, parse({"strategy": "cost", "learning": learning, **members}))


def ask(where: Scene, number: int, wishes: Wishes = Wishes(), model: str = "m", wants_figures: bool = False) -> Decision:  # noqa: B008
    """The same question in a conversation of its own: one that goes on would stay where it is."""
    texts = ((chat_pb2.ROLE_SYSTEM, f"You are number {number}."), (chat_pb2.ROLE_USER, "How much is a joule?"))
    messages = [chat_pb2.Message(role=role, text=text) for role, text in texts]
    return where.decide(model, wishes, wants_figures=wants_figures, messages=messages)


def known(where: Scene, **goodness: float) -> None:
    """What many answers of these providers were like."""
    told = where.decide("m", wants_figures=True)
    assert told.complexity is not None
    for provider, good in goodness.items():
        for _ in range(200):
            where.posteriors.observe(Arm(cluster_of(told.complexity), provider, "m"), good)


def firsts(where: Scene, wishes: Wishes = Wishes()) -> tuple[Counter[str], list[Decision]]:  # noqa: B008
    decisions = [ask(where, number, wishes) for number in range(MANY)]
    return Counter(decision.ranked[0].provider.name for decision in decisions), decisions


def test_traffic_converges_to_the_better_of_two_models() -> None:
    """Seed 20261121: seven of ten answers of one are good, nine of ten of the other; every answer is reported."""
    where, chance = scene(ONE, OTHER), Random(20261121)
    truth, chosen = {"one": 0.7, "other": 0.9}, []
    for number in range(4 * MANY):
        decision = ask(where, number)
        provider = decision.ranked[0].provider.name
        chosen.append(provider)
        assert decision.complexity is not None
        arm = Arm(cluster_of(decision.complexity), provider, "m")
        where.posteriors.observe(arm, float(chance.random() < truth[provider]))
    assert 0.4 < chosen[:100].count("other") / 100 < 0.6
    assert chosen[-MANY:].count("other") >= (1 - MOST_EXPLORED) * MANY


@pytest.mark.parametrize("learning", ["off", "shadow"])
def test_without_it_the_choice_is_the_same_whatever_was_learnt(learning: str) -> None:
    plain, taught = scene(ONE, OTHER, learning=learning), scene(ONE, OTHER, learning=learning)
    known(taught, one=0.0, other=1.0)
    for number in range(MANY):
        one, other = (ask(where, number).ranked for where in (plain, taught))
        assert [candidate.target for candidate in one] == [candidate.target for candidate in other]
    _, decisions = firsts(taught)
    assert not any(decision.explored for decision in decisions)
    assert any(decision.proposal and decision.proposal.explores for decision in decisions) == (learning == "shadow")


def test_tries_are_a_bounded_share_and_said() -> None:
    where = scene(ONE, OTHER)
    known(where, one=0.0, other=1.0)
    chosen, decisions = firsts(where)
    # What is better is taken anyway: there is nothing left to try.
    assert chosen["other"] == MANY and not any(decision.explored for decision in decisions)
    _, decisions = firsts(scene(ONE, OTHER))
    explored = [decision for decision in decisions if decision.explored]
    assert 0 < len(explored) <= MOST_EXPLORED * MANY
    for decision in explored:
        assert "tried to learn" in decision.text and explanation.document(decision)["explored"] is True
        assert sorted(candidate.provider.name for candidate in decision.ranked) == ["one", "other"]


def test_who_has_proved_worse_comes_after_the_equals_and_before_the_others() -> None:
    where = scene(ONE, OTHER, replace(ONE, provider="dear", usd=9.0))
    known(where, one=0.0, other=1.0)
    decision = where.decide("m", wants_figures=True)
    assert [candidate.provider.name for candidate in decision.ranked] == ["other", "one", "dear"]
    told = explanation.document(decision)
    assert [(one["proved_worse"], one["near_best"]) for one in told["candidates"]] == [(False, True), (True, False), (False, False)]
    assert told["learning"] == "on"


def test_nobody_is_tried_who_breaks_a_bound_is_withheld_or_is_not_wanted() -> None:
    dear = replace(OTHER, usd=2.0)
    bound = 1.5 * min(option.prospect.cost_usd or 0.0 for option in ask(scene(ONE, dear), 0, wants_figures=True).options)
    cases: tuple[tuple[tuple[Served, ...], dict[str, Any], Wishes], ...] = (
        ((ONE, dear), {"near_best": 5.0}, Wishes(constraints=Constraints(max_cost_usd=bound))),
        ((ONE, replace(OTHER, healthy=False, seconds=None)), {"near_best": 5.0}, Wishes()),
        ((ONE, OTHER), {}, Wishes(preferred=("one",))),
        ((ONE, OTHER), {}, Wishes(excluded=frozenset({"other"}))),
        ((ONE, OTHER), {}, Wishes(may_explore=False, preferred=("one",))),
        ((ONE, replace(OTHER, usd=2.0)), {}, Wishes()),
    )
    for served, members, wishes in cases:
        where = scene(*served, **members)
        known(where, other=1.0)
        chosen, decisions = firsts(where, wishes)
        assert chosen == {"one": MANY}, (served, wishes)
        assert not any(decision.explored for decision in decisions)


def test_a_request_that_is_not_to_be_explored_with_still_gets_the_better_one() -> None:
    where = scene(ONE, OTHER)
    known(where, one=0.0, other=1.0)
    chosen, decisions = firsts(where, Wishes(may_explore=False))
    assert chosen == {"other": MANY}
    assert not any(decision.proposal for decision in decisions)


def test_a_virtual_model_has_its_own_say() -> None:
    where = scene(ONE, OTHER, learning="off", virtual_models={"house": {"strategy": "cost", "learning": "on"}})
    known(where, one=0.0, other=1.0)
    chosen = {ask(where, number, Wishes(may_explore=False), "house").ranked[0].provider.name for number in range(100)}
    assert chosen == {"other"}
    assert where.decide("house").learning == "on" and where.decide("m").learning == "off"
