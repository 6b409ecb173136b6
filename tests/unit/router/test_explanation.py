"""The shape of explanations is a promise: names, units, and null for what is not known."""

import json

import pytest

from services.router import explanation
from services.router.prospect import Constraints
from services.router.strategies import Strategy
from services.router.wishes import Wishes
from tests.unit.router.pictures import Scene, Served

CHEAP = Served("cheap", "m", usd=1.0, joules_per_token=0.1, grams_per_kwh=360, tier=2, seconds=1.0)
DEAR = Served("dear", "m", usd=5.0, joules_per_token=0.5, grams_per_kwh=36, tier=4, seconds=0.5, in_flight=2)
UNKNOWN = Served("unknown", "m")
FIGURES = {"cost_usd", "energy_joules", "carbon_grams", "latency_seconds", "latency_p95_seconds", "failure_odds", "quality"}


def told(*served: Served, wishes: Wishes = Wishes(strategy=Strategy.COST)) -> dict[str, object]:  # noqa: B008
    document = explanation.document(Scene(served).decide("m", wishes, wants_figures=True, max_tokens=100))
    parsed = json.loads(json.dumps(document))
    assert isinstance(parsed, dict)
    return parsed


def test_the_runner_up_says_what_it_would_have_cost_more() -> None:
    document = told(CHEAP, DEAR)
    chosen, second = document["chosen"], document["runner_up"]
    assert isinstance(chosen, dict) and isinstance(second, dict)
    assert (chosen["provider"], second["provider"], second["rank"]) == ("cheap", "dear", 2)
    difference = second["difference"]
    for name in ("cost_usd", "energy_joules", "carbon_grams", "latency_seconds", "quality"):
        assert difference[name] == pytest.approx(second["expected"][name] - chosen["expected"][name])
    expected = chosen["expected"]
    tokens = document["input_tokens"] + chosen["output_tokens"]
    assert expected["cost_usd"] == pytest.approx(tokens * 1e-6)
    assert expected["energy_joules"] == pytest.approx(tokens * 0.1)
    assert expected["carbon_grams"] == pytest.approx(tokens * 0.1 / 3.6e6 * 360)
    assert difference["cost_usd"] > 0 > difference["carbon_grams"] and difference["latency_seconds"] < 0


def test_every_candidate_has_every_figure_or_null() -> None:
    document = told(CHEAP, UNKNOWN)
    candidates = document["candidates"]
    assert isinstance(candidates, list)
    known, unknown = candidates
    assert known["expected"].keys() == unknown["expected"].keys() == FIGURES
    assert None not in known["expected"].values()
    assert {name for name, figure in unknown["expected"].items() if figure is None} == FIGURES - {"failure_odds"}
    assert (unknown["tier"], known["tier"], known["near_best"], unknown["near_best"]) == (None, 2, True, False)
    runner_up = document["runner_up"]
    assert isinstance(runner_up, dict)
    assert runner_up["difference"]["cost_usd"] is None


def test_what_was_left_out_and_what_was_given_up_is_said() -> None:
    wishes = Wishes(strategy=Strategy.COST, excluded=frozenset({"dear"}), constraints=Constraints(max_cost_usd=0, max_latency_s=9))
    document = told(CHEAP, DEAR, wishes=wishes)
    assert document["rejected"] == [{"provider": "dear", "model": "m", "reason": "excluded"}]
    assert (document["relaxed"], document["constraints"]) == (["cost"], {"max_cost_usd": 0, "max_latency_ms": 9000})
    assert document["runner_up"] is None


def test_a_strategy_that_weighs_nothing_has_figures_all_the_same() -> None:
    document = told(DEAR, CHEAP, wishes=Wishes(strategy=Strategy.FALLBACK))
    chosen = document["chosen"]
    assert isinstance(chosen, dict)
    assert (chosen["provider"], chosen["score"], document["weights"]) == ("dear", None, None)
    assert chosen["expected"]["cost_usd"] > 0


def test_messages_say_the_same_as_the_document() -> None:
    decision = Scene([CHEAP, UNKNOWN]).decide("m", Wishes(strategy=Strategy.COST), wants_figures=True)
    message, document = explanation.message(decision), explanation.document(decision)
    known, unknown = message.candidates
    expected = document["candidates"][0]["expected"]
    assert (known.cost_usd, known.energy_joules, known.quality) == (expected["cost_usd"], expected["energy_joules"], expected["quality"])
    assert known.expected_latency.ToMicroseconds() == pytest.approx(expected["latency_seconds"] * 1e6, abs=1)
    assert not unknown.HasField("cost_usd") and not unknown.HasField("expected_latency")
    assert dict(message.weights) == document["weights"] and message.explanation == document["decision"]
