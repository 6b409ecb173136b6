from typing import Any

import pytest

from services.router.prospect import Constraints
from services.router.strategies import STRATEGIES, Strategy
from services.router.wishes import NO_WISHES, Wishes, read_wishes, unmet
from services.runtime.errors import GatewayError

ZONED = "x-joulegate-zones=fra, SWE"


def test_a_request_that_says_nothing_wishes_nothing() -> None:
    assert read_wishes({"content-type": "application/json"}, {}) is NO_WISHES


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("least_latency", Strategy.LATENCY),
        ("lowest_cost", Strategy.COST),
        ("highest_quality", Strategy.QUALITY),
        ("failover", Strategy.FALLBACK),
        ("round-robin", Strategy.ROUND_ROBIN),
        ("Round_Robin", Strategy.ROUND_ROBIN),
        ("weighted_random", Strategy.WEIGHTED_RANDOM),
        ("random", Strategy.RANDOM),
        ("balanced", Strategy.BALANCED),
        ("green", Strategy.ECO),
        ("energy", Strategy.ECO),
        *((name, strategy) for name, strategy in STRATEGIES.items()),
    ],
)
@pytest.mark.parametrize("field", ["routing_strategy", "x-routing-strategy", "routing.strategy", "header"])
def test_every_name_of_a_strategy_is_understood_in_every_field(name: str, strategy: Strategy, field: str) -> None:
    headers = {"x-joulegate-strategy": name} if field == "header" else {}
    extensions: dict[str, Any] = {} if field == "header" else {field: name}
    if field == "routing.strategy":
        extensions = {"routing": {"strategy": name}}
    assert read_wishes(headers, extensions).strategy is strategy


@pytest.mark.parametrize(
    ("headers", "extensions", "expected"),
    [
        ({}, {"provider": "groq"}, Wishes(preferred=("groq",))),
        ({}, {"x-prefer-provider": "groq"}, Wishes(preferred=("groq",))),
        ({}, {"routing": {"preferred_providers": ["b", "a", "b"]}}, Wishes(preferred=("b", "a"))),
        ({}, {"provider": "c", "routing": {"preferred_providers": ["a"]}}, Wishes(preferred=("c", "a"))),
        ({}, {"routing": {"exclude_providers": ["a"]}}, Wishes(excluded=frozenset("a"))),
        ({"x-joulegate-zones": "fra, SWE"}, {"routing": {"zones": ["SWE", "NOR"]}}, Wishes(zones=frozenset({"SWE"}), pinned=ZONED)),
        ({}, {"routing": {"zones": ["fra"]}}, Wishes(zones=frozenset({"FRA"}))),
        ({}, {"fallback": False}, Wishes(may_fail_over=False)),
        ({}, {"fallback": True, "routing": {"fallback": False}}, Wishes()),
        ({}, {"routing": {"required_capabilities": ["function-calling", "vision"]}}, Wishes(required=frozenset({"tools", "vision"}))),
        (
            {},
            {"routing": {"max_cost_usd": 0.01, "min_quality": "0.9"}},
            Wishes(constraints=Constraints(max_cost_usd=0.01, min_quality=0.9)),
        ),
        ({"x-joulegate-max-latency-ms": "1500"}, {}, Wishes(constraints=Constraints(max_latency_s=1.5))),
        ({"x-joulegate-max-carbon-g": "2"}, {"routing": {"max_carbon_g": 1}}, Wishes(constraints=Constraints(max_carbon_g=1))),
        ({"x-joulegate-fallback": "false"}, {"fallback": True}, Wishes(may_fail_over=False)),
        ({"x-joulegate-hedge": "True"}, {}, Wishes(hedges=True)),
        ({"x-explore": "false"}, {}, Wishes(may_explore=False)),
        ({"x-explore": "true"}, {}, Wishes()),
        ({"x-joulegate-debug": "true"}, {}, Wishes(wants_explanation=True)),
        ({"x-routing-strategy": "cost"}, {"routing_strategy": "latency"}, Wishes(strategy=Strategy.COST)),
        ({}, {"routing": "odd", "routing_strategy": None}, Wishes()),
        ({}, {"x-prefer-provider": 1}, Wishes()),
    ],
)
def test_wishes_are_read(headers: dict[str, str], extensions: dict[str, Any], expected: Wishes) -> None:
    assert read_wishes(headers, extensions) == expected


def test_headers_that_could_make_it_another_answer_are_kept_for_its_name() -> None:
    wishes = read_wishes({"x-joulegate-prefer-provider": "a, b", "x-joulegate-exclude-providers": "c", "x-joulegate-max-cost-usd": "1"}, {})
    assert wishes.preferred == ("a", "b") and wishes.excluded == {"c"}
    assert wishes.pinned == "x-joulegate-prefer-provider=a, b\nx-joulegate-exclude-providers=c"


@pytest.mark.parametrize(
    ("headers", "extensions", "param"),
    [
        ({}, {"routing_strategy": "fastest"}, "routing_strategy"),
        ({}, {"x-routing-strategy": 7}, "x-routing-strategy"),
        ({}, {"routing": {"strategy": {"a": "b"}}}, "routing.strategy"),
        ({"x-joulegate-strategy": ""}, {}, "x-joulegate-strategy"),
        ({}, {"routing": {"preferred_providers": "a"}}, "routing.preferred_providers"),
        ({}, {"routing": {"exclude_providers": [1]}}, "routing.exclude_providers"),
        ({}, {"routing": {"exclude_providers": ["a"] * 101}}, "routing.exclude_providers"),
        ({}, {"routing": {"required_capabilities": ["flying"]}}, "routing.required_capabilities"),
        ({}, {"routing": {"max_cost_usd": -1}}, "routing.max_cost_usd"),
        ({}, {"routing": {"min_quality": True}}, "routing.min_quality"),
        ({"x-joulegate-min-quality": "1.5"}, {}, "x-joulegate-min-quality"),
        ({"x-joulegate-max-cost-usd": "nan"}, {}, "x-joulegate-max-cost-usd"),
        ({"x-joulegate-max-latency-ms": "soon"}, {}, "x-joulegate-max-latency-ms"),
        ({"x-joulegate-max-carbon-g": "inf"}, {}, "x-joulegate-max-carbon-g"),
        ({"x-joulegate-fallback": "never"}, {}, "x-joulegate-fallback"),
        ({}, {"fallback": "no"}, "fallback"),
        ({}, {"routing": {"zones": "FRA"}}, "routing.zones"),
        ({"x-joulegate-zones": "FRA"}, {"routing": {"zones": ["SWE"]}}, "routing.zones"),
        ({}, {"routing": {"fallback": 0}}, "routing.fallback"),
        ({"x-joulegate-debug": "1"}, {}, "x-joulegate-debug"),
        *(({"x-joulegate-hedge": value}, {}, "x-joulegate-hedge") for value in ("", "1", "yes", "after 2s")),
    ],
)
def test_nonsense_is_refused_by_name(headers: dict[str, str], extensions: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as raised:
        read_wishes(headers, extensions)
    assert (raised.value.http_status, raised.value.metadata["param"]) == (400, param)


def test_what_nobody_acts_on_is_named() -> None:
    honoured = frozenset({"provider", "routing"})
    asked = {"provider": "a", "x-budget-key": "k", "routing": {"strategy": "cost", "mood": "good"}}
    assert unmet(asked, honoured) == ("routing.mood: not known here, ignored", "x-budget-key: not known here, ignored")
    assert unmet({}, honoured) == ()
