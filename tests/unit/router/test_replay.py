"""Decisions that were recorded are made again: the same by the same policy, and otherwise by another one."""

import json
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulegate.chat.v1 import chat_pb2
from services.router.catalogue import Catalogue
from services.router.complexity import Scorer
from services.router.decision import Decision
from services.router.decision_log import DecisionLog, RecordedSelection
from services.router.families import Declared, Families
from services.router.learning import Arm, Explorer, Posteriors, cluster_of
from services.router.load import Load
from services.router.output_lengths import OutputLengths
from services.router.policy import parse
from services.router.prospect import Constraints
from services.router.rates import Rate
from services.router.replay import LogError, Replay, Replayed, Summary
from services.router.slate import Asked, Slates
from services.router.strategies import Strategy
from services.router.wishes import Wishes
from services.runtime.identity import ANONYMOUS, Caller, ModelScope
from tests.unit.router.pictures import NOW, Served, figures_of, providers_of, rate

SERVED = (
    Served("dear", "large", usd=10, joules_per_token=5, tier=5, seconds=0.4, in_flight=3, capabilities=("tools",)),
    Served("dear", "small", usd=1, joules_per_token=0.5, tier=2, seconds=0.2),
    Served("cheap", "small", usd=0.1, joules_per_token=0.9, tier=2, seconds=0.9, in_flight=1),
    Served("new", "small", tier=1),
    Served("down", "small", usd=0.01, joules_per_token=0.1, tier=2, healthy=False),
)
MODELS = ("small", "large", "dear/small", "auto", "fast", "cheap", "eco", "quality")


class KnownRates:
    """Rates that do not change, as the router's."""

    def __init__(self) -> None:
        self.known: Mapping[tuple[str, str], Rate] = {(one.provider, one.model): rate(one) for one in SERVED if one.usd is not None}

    def of(self, provider: str, model: str) -> Rate | None:
        return self.known.get((provider, model))


class Lines(DecisionLog):
    """A log in memory."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def note(self, line: dict[str, Any]) -> None:
        # As a file would have it.
        self.lines.append(json.loads(json.dumps(line)))


class Recorder:
    """A router's choosing, recorded."""

    last: Decision

    def __init__(self, document: Mapping[str, Any]) -> None:
        policy, declared = parse(document), {(one.provider, one.model): Declared(one.tier) for one in SERVED if one.tier}
        self.log, self.lengths, self.now = Lines(), OutputLengths(), NOW
        self.load = Load()
        self.load.tell(figures_of(SERVED), NOW, is_whole=True)
        self.catalogue = Catalogue(providers_of(SERVED), self.load)
        rates: Any = KnownRates()
        slates = Slates(policy, Families(declared), rates)
        self.posteriors = Posteriors()
        learner = Explorer(self.posteriors, Random(3))
        self.selection = RecordedSelection(
            policy, document, declared, slates, rates, self.lengths, Scorer.load(), learner, lambda: self.now, self.log
        )

    def decide(self, model: str, wishes: Wishes, caller: Caller = ANONYMOUS, **members: Any) -> list[tuple[str, str]]:
        messages = members.pop("messages", [chat_pb2.Message(role=chat_pb2.ROLE_USER, text="How much is a joule?")])
        asked = Asked(chat_pb2.ChatRequest(model=model, messages=messages, **members), model, caller, wishes, may_explore=True)
        self.last = self.selection.choose(self.selection.gather(self.catalogue, asked))
        return [candidate.target for candidate in self.last.tried]


def recorded(document: Mapping[str, Any], seed: int = 1, count: int = 60) -> Lines:
    """A busy while: calls begin and end, answers get longer, time passes."""
    chance, recorder = Random(seed), Recorder(document)
    for _ in range(count):
        wishes = Wishes(
            strategy=chance.choice([None, None, *Strategy]),
            preferred=chance.choice([(), ("cheap",)]),
            excluded=frozenset(chance.choice([(), ("dear",)])) if chance.random() < 0.2 else frozenset(),
            constraints=chance.choice([Constraints(), Constraints(max_cost_usd=1e-3, min_quality=0.5)]),
            may_fail_over=chance.random() < 0.8,
        )
        caller = chance.choice([ANONYMOUS, Caller("k", "t", ModelScope(["small", "auto"]))])
        model = chance.choice(MODELS) if caller is ANONYMOUS else chance.choice(("small", "auto"))
        if wishes.excluded and model in ("large", "dear/small"):
            model = "small"
        first, *_ = recorder.decide(model, wishes, caller, stream=chance.random() < 0.5, max_tokens=chance.choice([0, 50]))
        if chance.random() < 0.5:
            recorder.load.of(*first).began()
        recorder.lengths.learn(first[1], chance.randrange(1, 2000))
        recorder.now += chance.random()
    return recorder.log


def replayed(lines: list[dict[str, Any]], document: Mapping[str, Any] | None = None) -> tuple[list[Replayed], Summary]:
    for number, line in enumerate(lines):
        line.setdefault("request_id", f"r{number}")
    summary, decisions = Summary(), list(Replay(None if document is None else parse(document)).run(lines))
    for one in decisions:
        summary.add(one)
    return decisions, summary


DOCUMENTS: tuple[Mapping[str, Any], ...] = (
    {},
    {"strategy": "eco", "near_best": 1.0},
    {"strategy": "round_robin", "provider_weights": {"cheap": 3}},
    {"strategy": "weighted_random", "exclude_providers": ["new"]},
    {"strategy": "balanced", "weights": {"cost": 1, "latency": 2}, "constraints": {"max_latency_ms": 600}},
    {"strategy": "latency", "virtual_models": {"auto": {"strategy": "least_busy", "max_tier": 2}}},
    {"strategy": "cost", "near_best": 3.0, "learning": "on"},
)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(DOCUMENTS), st.integers(0, 1000))
def test_same_policy_chooses_the_same_to_the_last_of_the_chain(document: Mapping[str, Any], seed: int) -> None:
    lines = recorded(document, seed, count=25).lines
    decisions, summary = replayed(lines)
    assert [one.is_same for one in decisions] == [True] * len(decisions)
    assert (summary.decision_count, summary.same_count) == (25, 25)
    assert summary.recorded == summary.replayed
    # The very policy, given by hand, is no other policy.
    assert replayed(lines, next(line["document"] for line in lines if line["kind"] == "policy"))[1].digest == summary.digest


def test_other_policy_chooses_otherwise_and_says_what_it_would_cost() -> None:
    recorder = Recorder({"strategy": "fallback", "prefer_providers": ["dear"]})
    for _ in range(10):
        assert recorder.decide("small", Wishes())[0] == ("dear", "small")
    decisions, summary = replayed(recorder.log.lines, {"strategy": "cost"})
    assert {one.chosen.target for one in decisions if one.chosen} == {("cheap", "small")}
    assert summary.same_count == 0
    assert 0 < summary.replayed.cost_usd < summary.recorded.cost_usd / 5
    assert summary.replayed.energy_joules > summary.recorded.energy_joules
    assert summary.replayed.unknown_count == 0
    assert replayed(recorder.log.lines, {"strategy": "cost"})[1].digest == summary.digest


def test_policy_that_leaves_nobody_is_counted_as_refusing() -> None:
    recorder = Recorder({})
    recorder.decide("large", Wishes())
    decisions, summary = replayed(recorder.log.lines, {"exclude_providers": ["dear"]})
    assert decisions[0].chosen is None
    assert summary.refused_count == 1


def test_change_of_policy_in_the_log_holds_from_its_line_on() -> None:
    recorder = Recorder({"strategy": "fallback", "prefer_providers": ["dear"]})
    recorder.decide("small", Wishes())
    document = {"strategy": "fallback", "prefer_providers": ["cheap"]}
    recorder.selection.apply(parse(document), document, 1)
    recorder.decide("small", Wishes())
    decisions, summary = replayed(recorder.log.lines)
    assert [one.recorded.target[0] for one in decisions] == ["dear", "cheap"]
    assert summary.same_count == 2


def test_nothing_of_a_requests_text_is_recorded() -> None:
    assert "How much" not in json.dumps(recorded({}).lines)


@pytest.mark.parametrize("line", [{}, {"kind": "decision"}, {"kind": "start", "version": 99}, {"kind": "picture", "providers": 3}])
def test_lines_that_are_none_are_refused_by_number(line: dict[str, Any]) -> None:
    def lines() -> Iterator[dict[str, Any]]:
        yield {"kind": "start", "version": 1}
        yield line

    with pytest.raises(LogError):
        list(Replay(None).run(lines()))


def test_what_was_learnt_and_tried_is_replayed_and_not_drawn_again() -> None:
    recorder, chance = Recorder({"strategy": "cost", "near_best": 5.0, "learning": "on"}), Random(20261121)
    explored = 0
    for number in range(400):
        # Each in a conversation of its own: one that goes on would stay where it is.
        texts = ((chat_pb2.ROLE_SYSTEM, f"You are number {number}."), (chat_pb2.ROLE_USER, "How much is a joule?"))
        messages = [chat_pb2.Message(role=role, text=text) for role, text in texts]
        provider, model = recorder.decide("small", Wishes(), messages=messages)[0]
        explored += recorder.last.explored
        assert recorder.last.complexity is not None
        arm = Arm(cluster_of(recorder.last.complexity), provider, model)
        recorder.posteriors.observe(arm, float(chance.random() < (0.9 if provider == "dear" else 0.3)))
    assert 0 < explored <= 8
    decisions, summary = replayed(recorder.log.lines)
    assert all(one.is_same for one in decisions)
    assert summary.digest == replayed(recorder.log.lines)[1].digest
    # What was known is known to another policy too, and nothing is tried where it is not to be.
    chosen, _ = replayed(recorder.log.lines, {"strategy": "cost", "near_best": 5.0, "learning": "shadow"})
    assert sum(not one.is_same for one in chosen) > explored
