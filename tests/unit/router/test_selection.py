"""Who is chosen for what: the strategies, virtual models, bounds and wishes, over one picture of providers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from random import Random

import pytest

from joulegate.chat.v1 import chat_pb2
from services.router.complexity import Complexity, Scorer
from services.router.families import Declared, Families
from services.router.forecast import Forecast
from services.router.learning import Explorer, Posteriors
from services.router.load import Place
from services.router.output_lengths import OutputLengths
from services.router.policy import RoutingPolicy, VirtualModel, parse
from services.router.prospect import Constraints
from services.router.ranking import Ranking
from services.router.rates import Rate
from services.router.selection import Selection
from services.router.slate import Asked, Slates
from services.router.strategies import Criterion, Strategy
from services.router.wishes import Wishes
from services.runtime.errors import GatewayError
from services.runtime.identity import ANONYMOUS, Caller, ModelScope
from tests.unit.router.pictures import NOW, Scene, Served, rate

SMALL = Served("cheap", "small", usd=0.1, joules_per_token=0.05, grams_per_kwh=500, tier=1, seconds=0.8)
MIDDLE = Served("quick", "middle", usd=1.0, joules_per_token=0.3, grams_per_kwh=300, tier=3, seconds=0.2)
CLEAN = Served("nordic", "large", usd=12.0, joules_per_token=1.0, grams_per_kwh=20, tier=5, seconds=1.5)
LARGE = Served("best", "large", usd=10.0, joules_per_token=1.0, grams_per_kwh=500, tier=5, seconds=1.0)
FLEET = (SMALL, MIDDLE, CLEAN, LARGE)


def asks(text: str) -> chat_pb2.Message:
    return chat_pb2.Message(role=chat_pb2.ROLE_USER, text=text)


def by(strategy: Strategy) -> Wishes:
    return Wishes(strategy=strategy)


EASY = "How much is a joule?"
HARD = "Write a Python function that solves the travelling salesman problem by dynamic programming, with tests."


@pytest.mark.parametrize(
    ("name", "text", "first"),
    [
        ("cheap", HARD, "cheap/small"),
        ("fast", HARD, "quick/middle"),
        ("quality", EASY, "best/large"),
        ("quality", HARD, "best/large"),
        ("auto", EASY, "cheap/small"),
        ("auto", HARD, "nordic/large"),
        ("eco", EASY, "nordic/large"),
    ],
)
def test_each_virtual_model_chooses_another(name: str, text: str, first: str) -> None:
    scene = Scene((SMALL, MIDDLE, replace(CLEAN, joules_per_token=0.5), replace(LARGE, usd=9.0)))
    assert scene.first(name, messages=[asks(text)]) == first


@pytest.mark.parametrize(
    ("strategy", "first"),
    [
        (Strategy.COST, "best"),
        (Strategy.CARBON, "nordic"),
        (Strategy.FALLBACK, "nordic"),
        (Strategy.LATENCY, "best"),
        (Strategy.LEAST_BUSY, "nordic"),
    ],
)
def test_strategies_choose_among_the_providers_of_one_model(strategy: Strategy, first: str) -> None:
    fleet = (CLEAN, replace(LARGE, in_flight=1, usd=6.0, seconds=0.5))
    assert Scene(fleet).order("large", by(strategy))[0] == first


def test_eco_weighs_energy_as_greengate_did() -> None:
    scene = Scene([replace(LARGE, provider="hungry", joules_per_token=50.0), replace(LARGE, provider="frugal", joules_per_token=1.0)])
    decision = scene.decide("large", by(Strategy.ECO))
    assert decision.ranked[0].provider.name == "frugal"
    assert decision.weights is not None
    assert decision.weights.shares() == pytest.approx({"cost": 0.35, "latency": 0.2, "reliability": 0.3, "energy": 0.15})


def test_the_expected_cost_is_that_of_this_request() -> None:
    scene = Scene([MIDDLE])
    short = scene.decide("middle", wants_figures=True, max_tokens=10).options[0]
    long = scene.decide("middle", wants_figures=True, max_tokens=200).options[0]
    assert (short.output_tokens, long.output_tokens) == (10, 200)
    assert short.prospect.cost_usd is not None and long.prospect.cost_usd is not None
    assert long.prospect.cost_usd - short.prospect.cost_usd == pytest.approx(190 * 1e-6)
    for _ in range(200):
        scene.lengths.learn("middle", 80)
    assert scene.decide("middle", wants_figures=True).options[0].output_tokens == pytest.approx(80, rel=0.05)


ANY = RoutingPolicy(virtual_models={"any": VirtualModel("any", Strategy.COST)})


def test_bounds_leave_out_who_breaks_them() -> None:
    decision = Scene(FLEET, ANY).decide("any", Wishes(constraints=Constraints(max_cost_usd=0.001)), max_tokens=200)
    assert [candidate.provider.name for candidate in decision.ranked] == ["cheap", "quick"]
    assert {(rejected.candidate.provider.name, rejected.reason) for rejected in decision.rejected} == {
        ("nordic", "constraint:cost"),
        ("best", "constraint:cost"),
    }
    assert decision.relaxed == ()


def test_bounds_that_nobody_keeps_are_given_up_in_order_and_said() -> None:
    decision = Scene(FLEET, ANY).decide("any", Wishes(constraints=Constraints(max_cost_usd=1e-9, max_latency_s=0.3, min_quality=0.1)))
    assert decision.relaxed == (Criterion.COST,)
    assert [candidate.provider.name for candidate in decision.ranked] == ["quick"]


def test_bounds_that_may_not_be_given_up_refuse_the_request() -> None:
    scene = Scene(FLEET, replace(ANY, relaxation=()))
    with pytest.raises(GatewayError, match="cost") as raised:
        scene.decide("any", Wishes(constraints=Constraints(max_cost_usd=1e-9)))
    assert raised.value.http_status == 400


def test_an_unknown_figure_neither_wins_nor_excludes() -> None:
    unknown = replace(SMALL, provider="unknown", usd=None)
    scene = Scene((unknown, *FLEET), ANY)
    assert scene.order("any")[0] == "cheap"
    bounded = scene.decide("any", Wishes(constraints=Constraints(max_cost_usd=0.001)), max_tokens=200)
    assert [candidate.provider.name for candidate in bounded.ranked] == ["cheap", "quick", "unknown"]


def test_among_those_near_the_best_load_decides() -> None:
    twins = [Served(name, "m", usd=1.0, joules_per_token=1.0, seconds=0.5, tier=3) for name in "ab"]
    scene = Scene(twins)
    counts: Counter[str] = Counter()
    for turn in range(60):
        message = asks(f"Question {turn}")
        decision = scene.decide("m", by(Strategy.COST), messages=[message])
        counts[decision.ranked[0].provider.name] += 1
        Place(decision.ranked)
    assert min(counts.values()) > 15, counts


def test_a_conversation_stays_where_it_is_while_that_one_is_not_crowded() -> None:
    scene = Scene([Served(name, "m", usd=1.0, joules_per_token=1.0, seconds=0.5, tier=3) for name in "abcd"])
    first = [chat_pb2.Message(role=chat_pb2.ROLE_SYSTEM, text="Be brief."), asks("Hello")]
    more = [chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, text="Hi"), asks("And then?")]
    home = scene.first("m", by(Strategy.COST), messages=first)
    assert {scene.first("m", by(Strategy.COST), messages=first + more * turn) for turn in range(5)} == {home}
    others = {scene.first("m", by(Strategy.COST), messages=[asks(f"{number}")]) for number in range(40)}
    assert len(others) == 4, "other conversations live elsewhere"
    live = next(candidate.live for candidate in scene.catalogue.candidates("m") if "/".join(candidate.target) == home)
    for _ in range(5):
        live.began()
    assert scene.first("m", by(Strategy.COST), messages=first) != home


def test_a_cheaper_one_is_not_given_up_for_a_conversation() -> None:
    scene = Scene([Served("dear", "m", usd=9.0, seconds=0.5), Served("cheap", "m", usd=1.0, seconds=0.5)])
    for number in range(20):
        assert scene.order("m", by(Strategy.COST), messages=[asks(f"{number}")])[0] == "cheap"


def test_round_robin_takes_even_turns_by_shares() -> None:
    served = [Served(name, "m") for name in "abc"]
    scene = Scene(served, parse({"strategy": "round-robin"}))
    assert [scene.order("m")[0] for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]
    weighted = Scene(served, parse({"strategy": "round_robin", "provider_weights": {"a": 5}}))
    turns = [weighted.order("m")[0] for _ in range(7)]
    assert Counter(turns) == {"a": 5, "b": 1, "c": 1}
    assert "aaaa" not in "".join(turns)


def test_weighted_random_prefers_the_fast_and_leaves_out_nobody() -> None:
    scene = Scene([Served("slow", "m", seconds=3.0), Served("fast", "m", seconds=0.3), Served("new", "m")])
    counts = Counter(scene.order("m", by(Strategy.WEIGHTED_RANDOM))[0] for _ in range(400))
    assert counts["fast"] > 3 * counts["slow"] > 0 and counts["new"] > 0
    even = Counter(scene.order("m", by(Strategy.RANDOM))[0] for _ in range(600))
    assert min(even.values()) > 140


def test_who_is_slow_in_the_figures_is_found_to_be_well_by_a_call_now_and_then() -> None:
    was_slow = Served("was-slow", "m", usd=1.0, seconds=5.0)
    scene = Scene([was_slow, Served("usual", "m", usd=1.0, seconds=0.5)])
    balanced = by(Strategy.BALANCED)
    assert {scene.order("m", balanced)[0] for _ in range(200)} == {"usual"}
    scene.now += 60.0
    firsts = Counter(scene.order("m", balanced)[0] for _ in range(400))
    assert 0 < firsts["was-slow"] < 60


def test_under_a_bound_on_latency_who_was_never_timed_is_tried_now_and_then_and_is_not_the_best() -> None:
    scene = Scene(
        [Served("new", "m", usd=0.1), Served("known", "m", usd=1.0, seconds=0.5)], parse({"constraints": {"max_latency_ms": 2000}})
    )
    firsts = Counter(scene.order("m", by(Strategy.COST))[0] for _ in range(400))
    assert 0 < firsts["new"] < 60
    assert scene.order("m", by(Strategy.FALLBACK)) == ["known", "new"]


def test_the_preferred_come_first_while_they_are_well_and_the_excluded_never() -> None:
    scene = Scene([LARGE, CLEAN, replace(LARGE, provider="ill", healthy=False, seconds=None)])
    assert scene.order("large", Wishes(preferred=("nordic",)))[0] == "nordic"
    assert scene.order("large", Wishes(preferred=("ill", "nordic"), strategy=Strategy.COST))[0] == "nordic"
    assert scene.order("large", Wishes(preferred=("nordic",), excluded=frozenset({"nordic"}))) == ["best", "ill"]
    with pytest.raises(GatewayError, match="excluded") as raised:
        scene.decide("large", Wishes(excluded=frozenset({"nordic", "best", "ill"})))
    assert raised.value.metadata["param"] == "routing"


def test_only_who_is_known_to_be_in_the_zone_is_asked() -> None:
    scene = Scene([replace(LARGE, zone="USA"), replace(CLEAN, zone="SWE"), replace(LARGE, provider="anywhere")])
    decision = scene.decide("large", Wishes(zones=frozenset({"SWE", "NOR"})))
    assert [candidate.provider.name for candidate in decision.ranked] == ["nordic"]
    assert {rejected.reason for rejected in decision.rejected} == {"zone"}
    with pytest.raises(GatewayError, match="zones"):
        scene.decide("large", Wishes(zones=frozenset({"NOR"})))


def test_without_failover_there_is_one_target() -> None:
    assert Scene([LARGE, CLEAN]).order("large", Wishes(may_fail_over=False)) == ["best"]


def test_who_is_known_not_to_be_able_is_left_out() -> None:
    blind = replace(LARGE, provider="blind", capabilities=["chat", "tools"])
    seeing = replace(LARGE, provider="seeing", capabilities=["chat", "vision"])
    untold = replace(LARGE, provider="untold")
    short = replace(LARGE, provider="short", context_tokens=20)
    picture = chat_pb2.ContentPart(type="image_url", image_url=chat_pb2.ImageUrl(url="https://example.com/a.png"))
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=chat_pb2.ContentParts(parts=[picture]))
    scene = Scene([blind, seeing, untold, short])
    decision = scene.decide("large", messages=[message], max_tokens=50)
    assert [candidate.provider.name for candidate in decision.ranked] == ["seeing", "untold"]
    assert {rejected.reason for rejected in decision.rejected} == {"lacks:vision", "context"}
    assert scene.order("large", max_tokens=5) == ["blind", "seeing", "untold", "short"]
    assert scene.order("large", Wishes(required=frozenset({"tools"}))) == ["blind", "untold", "short"]


def test_where_nobody_is_able_the_provider_of_a_named_model_says_so_itself() -> None:
    blind = replace(LARGE, capabilities=["chat"])
    tools = [chat_pb2.Tool(type="function")]
    assert Scene([blind]).order("large", tools=tools) == ["best"]
    assert Scene([blind, replace(blind, provider="other")]).order("large", tools=tools) == ["best", "other"]
    with pytest.raises(GatewayError, match="lacks:tools"):
        Scene([blind]).decide("auto", tools=tools)
    with pytest.raises(GatewayError, match="lacks:tools"):
        Scene([blind]).decide("large", Wishes(required=frozenset({"tools"})))


def test_a_real_model_of_a_virtual_name_wins() -> None:
    scene = Scene([Served("lab", "fast", seconds=9.0), MIDDLE])
    assert scene.first("fast") == "lab/fast"
    assert not scene.decide("fast").is_virtual


def test_virtual_models_stand_for_what_chats_and_not_for_the_demonstration() -> None:
    demo = Served("demo", "demo", usd=0.0, kind="demo")
    ears = Served("best", "whisper-1", usd=0.0)
    assert Scene([demo, ears, SMALL]).order("cheap") == ["cheap"]
    assert Scene([demo]).order("cheap") == ["demo"]
    with pytest.raises(GatewayError) as raised:
        Scene([ears]).decide("cheap")
    assert raised.value.http_status == 404


def test_a_key_gets_of_a_virtual_model_what_it_may_use_itself_or_all_if_it_may_use_the_name() -> None:
    scene = Scene(FLEET)
    own = Caller("k", "t", ModelScope(["large"]))
    named = Caller("k", "t", ModelScope(["cheap"]))
    assert {candidate.model for candidate in scene.decide("cheap", caller=own).ranked} == {"large"}
    assert scene.decide("cheap", caller=named).ranked[0].model == "small"
    with pytest.raises(GatewayError) as raised:
        scene.decide("small", caller=named)
    assert raised.value.http_status == 403
    slates = scene.selection.slates
    assert [model.model.id for model in slates.listed(scene.catalogue, named)] == ["cheap"]
    assert "auto" in [model.model.id for model in slates.listed(scene.catalogue, own)]
    assert slates.listed_as(scene.catalogue, "auto", Caller("k", "t", ModelScope(["nothing"]))) is None


def test_a_strategy_in_the_request_changes_what_a_virtual_model_goes_by_and_not_its_bounds() -> None:
    scene = Scene(FLEET)
    decision = scene.decide("auto", by(Strategy.LATENCY))
    assert (decision.strategy, decision.constraints.min_quality_of_best) == (Strategy.LATENCY, 0.85)
    assert decision.hedges and not scene.decide("auto").hedges and scene.decide("fast").hedges
    assert not scene.decide("fast", Wishes(hedges=False)).hedges


def test_the_policy_can_be_swapped_at_run_time() -> None:
    scene = Scene([CLEAN, LARGE])
    assert scene.order("large")[0] == "nordic"
    scene.selection.slates.policy = parse({"strategy": "cost"})
    assert scene.order("large")[0] == "best"
    scene.selection.slates.policy = parse({"virtual_models": {"house": {"models": ["nordic/*"]}}, "exclude_providers": ["best"]})
    assert scene.order("house") == scene.order("large") == ["nordic"]


def test_what_is_known_of_the_prompt_decides_how_strong_a_model_auto_takes() -> None:
    scene = Scene(FLEET)
    told = scene.decide("auto", wants_figures=True)
    assert told.complexity is not None
    quality = {option.candidate.model: option.prospect.quality or 0.0 for option in told.options}
    best = quality["large"]
    kept = {candidate.model for candidate in told.ranked}
    for model, good in quality.items():
        assert (good >= 0.85 * best) == (model in kept)
    assert {rejected.reason for rejected in told.rejected} <= {"constraint:quality"}


def test_how_hard_a_prompt_is_is_not_found_out_again_where_it_is_known() -> None:
    scene, known = Scene(FLEET), Complexity(score=9.0, weak_suffices=0.1, weak_quality=0.1, strong_quality=0.9)
    asked = Asked(chat_pb2.ChatRequest(model="auto", messages=[asks(EASY)]), "auto", ANONYMOUS, complexity=known)
    decision = scene.selection.choose(scene.selection.gather(scene.catalogue, asked))
    assert decision.complexity is known
    assert decision.ranked[0].model == "large" != scene.decide("auto", messages=[asks(EASY)]).ranked[0].model


@pytest.mark.parametrize(
    ("name", "missing"),
    [("fast", ("input_nano_usd", "input_joules")), ("cheap", ("input_joules", "grams_per_kwh")), ("auto", ("grams_per_kwh",))],
)
def test_only_the_figures_that_are_weighed_are_found_out(name: str, missing: tuple[str, ...]) -> None:
    class Rates:
        """Those of the scene, less what nobody is to read."""

        @property
        def known(self) -> Mapping[tuple[str, str], Rate]:
            found = {(one.provider, one.model): rate(one) for one in FLEET}
            for one in found.values():
                for field in missing:
                    object.__delattr__(one, field)
            return found

        def of(self, provider: str, model: str) -> Rate | None:
            return self.known[provider, model]

    scene, rates = Scene(FLEET), Rates()
    slates = Slates(scene.policy, Families({(one.provider, one.model): Declared(one.tier) for one in FLEET}), rates)
    ranking, learner = Ranking(lambda: NOW, Random(7).random), Explorer(Posteriors(), Random(11))
    chooser = Selection(slates, ranking, Forecast(rates, OutputLengths()), Scorer.load(), learner, lambda: NOW)
    asked = Asked(chat_pb2.ChatRequest(model=name, messages=[asks(EASY)], stream=True), name, ANONYMOUS)
    first = chooser.choose(chooser.gather(scene.catalogue, asked)).ranked[0]
    assert "/".join(first.target) == scene.first(name, messages=[asks(EASY)], stream=True)
