import tomllib

import pytest

from services.router.learning import Learning
from services.router.policy import VIRTUAL_MODELS, RoutingPolicy, configured, parse
from services.router.prospect import RELAXATION, Constraints
from services.router.strategies import PRESETS, Criterion, Strategy, Weights, read_weights
from services.runtime.settings import SettingsError


def test_an_empty_document_is_the_default() -> None:
    assert parse({}) == RoutingPolicy()
    assert RoutingPolicy().strategy is Strategy.FALLBACK


def test_presets_of_earlier_gateways_are_kept() -> None:
    weights = RoutingPolicy().weights
    assert weights[Strategy.BALANCED] == Weights(cost=0.4, quality=0.35, latency=0.25)
    assert weights[Strategy.COST] == Weights(cost=0.8, quality=0.1, latency=0.1)
    assert weights[Strategy.QUALITY] == Weights(cost=0.05, quality=0.85, latency=0.1)
    assert weights[Strategy.ECO] == read_weights("cost=0.35,latency=0.2,reliability=0.3,energy=0.15")


def test_the_weights_of_one_strategy_change_and_the_others_stay() -> None:
    policy = parse({"weights": {"cost": {"cost": 1}}})
    assert policy.weights == {**PRESETS, Strategy.COST: Weights(cost=1)}


def test_bare_weights_are_those_of_the_policys_own_strategy() -> None:
    policy = parse({"strategy": "balanced", "weights": {"cost": 0.2, "quality": 0.6, "latency": 0.2}})
    assert policy.weights_of(Strategy.BALANCED, None) == Weights(cost=0.2, quality=0.6, latency=0.2)


def test_a_virtual_model_of_ones_own_and_a_changed_one() -> None:
    text = """
    [virtual_models.house]
    models = ["lab/*"]
    exclude_models = ["lab/old*"]
    strategy = "lowest_cost"
    constraints = { max_cost_usd = 0.01, min_quality_of_best = 0.9 }
    [virtual_models.fast]
    min_tier = 3
    """
    policy = configured(tomllib.loads(text), None, None)
    house, fast = policy.virtual_models["house"], policy.virtual_models["fast"]
    assert house.covers("lab", "new") and not house.covers("lab", "old-1") and not house.covers("other", "new")
    assert house.constraints == Constraints(max_cost_usd=0.01, min_quality_of_best=0.9)
    assert policy.weights_of(house.strategy, house) == PRESETS[Strategy.COST]
    assert (fast.min_tier, fast.weights, fast.strategy) == (3, VIRTUAL_MODELS["fast"].weights, Strategy.LATENCY)
    assert policy.virtual_models.keys() >= VIRTUAL_MODELS.keys()


def test_the_strategy_of_a_request_uses_its_own_weights_with_a_virtual_model() -> None:
    policy, auto = RoutingPolicy(), VIRTUAL_MODELS["auto"]
    assert policy.weights_of(Strategy.BALANCED, auto) == auto.weights
    assert policy.weights_of(Strategy.COST, auto) == PRESETS[Strategy.COST]
    assert policy.weights_of(Strategy.FALLBACK, auto) is None


def test_the_environment_wins_and_weights_without_a_strategy_ask_for_theirs() -> None:
    weights = Weights(energy=1)
    assert configured({"routing": {"strategy": "cost"}}, Strategy.LATENCY, None).strategy is Strategy.LATENCY
    assert configured({}, None, weights).strategy is Strategy.ECO
    assert configured({"routing": {"strategy": "cost"}}, None, weights).strategy is Strategy.COST
    assert configured({}, Strategy.FALLBACK, weights).weights[Strategy.ECO] == weights


def test_learning_is_said_for_all_and_for_one_virtual_model() -> None:
    policy = parse({"learning": "on", "virtual_models": {"auto": {"learning": "off"}, "fast": {}}})
    found = [policy.learning_of(virtual) for virtual in (None, *(policy.virtual_models[name] for name in ("auto", "fast", "eco")))]
    assert found == [Learning.ON, Learning.OFF, Learning.ON, Learning.ON]
    assert parse({}).learning_of(None) is Learning.SHADOW
    with pytest.raises(SettingsError) as raised:
        parse({"learning": "always", "virtual_models": {"auto": {"learning": True}}})
    assert len(raised.value.problems) == 2


def test_relaxation_may_be_reordered_or_forbidden() -> None:
    assert parse({}).relaxation == RELAXATION
    assert parse({"relax": ["quality", "latency"]}).relaxation == (Criterion.QUALITY, Criterion.LATENCY)
    assert parse({"relax": []}).relaxation == ()


def test_all_mistakes_are_told_at_once() -> None:
    document = {
        "strategy": "fastest",
        "colour": 1,
        "near_best": -1,
        "relax": ["mood"],
        "weights": {"cost": {"cost": 0}, "latency": {"cost": 1}},
        "floors": {"cost": 0},
        "constraints": {"min_quality": 2, "max_mood": 1},
        "provider_weights": {"a": "much"},
        "virtual_models": {"x": {"min_tier": 4, "max_tier": 2}, "y": 3, "z": {"strategy": 5, "models": "all"}},
    }
    with pytest.raises(SettingsError) as raised:
        parse(document)
    told = "\n".join(raised.value.problems)
    assert "fastest" not in told, "a value may be a secret"
    for part in ("strategy must be one of", "'colour'", "near_best", "relax", "at least one weight", "'latency'", "floors: cost"):
        assert part in told
    for part in ("min_quality", "'max_mood'", "a must be a number", "min_tier", "virtual_models.y", "z]: strategy", "models"):
        assert part in told


@pytest.mark.parametrize("text", ["", "cost", "cost=x", "cost=-1", "cost=0", "mood=1", "cost=nan", "cost=1;latency=2"])
def test_weights_that_make_no_sense_stop_the_start(text: str) -> None:
    with pytest.raises(ValueError):
        read_weights(text)
