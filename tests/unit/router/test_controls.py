import pytest

from services.router.controls import CacheControls, cache_controls, preferred_provider, routing_strategy, unmet_wishes, wants_hedge
from services.router.ranking import PLANNED, Strategy
from services.runtime.errors import GatewayError


@pytest.mark.parametrize(
    ("headers", "extensions", "expected"),
    [
        ({}, {}, CacheControls()),
        ({"cache-control": "no-cache"}, {}, CacheControls(may_read=False)),
        ({"cache-control": "No-Store"}, {}, CacheControls(may_read=False, may_write=False)),
        ({"cache-control": "max-age=60, only-if-cached"}, {}, CacheControls(max_age_s=60, only_if_cached=True)),
        ({"x-cache-ttl": "5", "x-cache-namespace": "faq"}, {}, CacheControls(ttl_s=5, namespace="faq")),
        ({}, {"x-cache": False}, CacheControls(may_read=False, may_write=False)),
        ({}, {"skip_cache": True}, CacheControls(may_read=False, may_write=False)),
        ({}, {"x-cache": True, "skip_cache": False}, CacheControls()),
        ({"x-cache-mode": "OFF"}, {}, CacheControls(may_read=False, may_write=False)),
        ({"x-cache-mode": "exact"}, {}, CacheControls()),
        ({"x-cache-mode": "semantic"}, {}, CacheControls(may_reword=True)),
        ({"x-cache-mode": "semantic", "x-cache-threshold": "0.975"}, {}, CacheControls(may_reword=True, min_similarity=0.975)),
        ({"x-cache-max-error": "0.02"}, {}, CacheControls(max_error=0.02)),
        ({"x-cache-max-error": "0"}, {}, CacheControls()),
        ({"x-cache-tags": " faq,, de ,faq"}, {}, CacheControls(tags=("faq", "de"))),
    ],
)
def test_controls_are_read(headers: dict[str, str], extensions: dict[str, object], expected: CacheControls) -> None:
    assert cache_controls(headers, extensions, cache_enabled=True) == expected


def test_a_switched_off_cache_is_neither_read_nor_written() -> None:
    controls = cache_controls({}, {}, cache_enabled=False)
    assert not controls.may_read and not controls.may_write


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"cache-control": "max-age=soon"}, "cache-control"),
        ({"cache-control": "max-age=-1"}, "cache-control"),
        ({"x-cache-ttl": "1.5"}, "x-cache-ttl"),
        ({"x-cache-namespace": "n" * 129}, "x-cache-namespace"),
        ({"x-cache-mode": "fuzzy"}, "x-cache-mode"),
        ({"x-cache-mode": ""}, "x-cache-mode"),
        ({"x-cache-threshold": "1.01"}, "x-cache-threshold"),
        ({"x-cache-max-error": "0.6"}, "x-cache-max-error"),
        ({"x-cache-threshold": "-0.5"}, "x-cache-threshold"),
        ({"x-cache-threshold": "high"}, "x-cache-threshold"),
        ({"x-cache-threshold": "nan"}, "x-cache-threshold"),
        ({"x-cache-tags": "t" * 129}, "x-cache-tags"),
        ({"x-cache-tags": ",".join(map(str, range(9)))}, "x-cache-tags"),
    ],
)
def test_nonsense_is_refused_by_name(headers: dict[str, str], param: str) -> None:
    with pytest.raises(GatewayError) as raised:
        cache_controls(headers, {}, cache_enabled=True)
    assert raised.value.metadata["param"] == param


def test_wishes_that_are_not_met_are_named() -> None:
    wishes = unmet_wishes({"provider": "a", "fallback": True, "x-cache": True, "routing_strategy": "latency"}, Strategy.FALLBACK)
    assert wishes == ("fallback: not supported yet, ignored",)


def test_of_the_routing_object_only_the_strategy_is_met() -> None:
    wishes = unmet_wishes({"routing": {"strategy": "least_busy", "exclude_providers": ["a"]}}, Strategy.FALLBACK)
    assert wishes == ("routing.exclude_providers: not supported yet, ignored",)


@pytest.mark.parametrize(
    ("extensions", "strategy"),
    [
        ({}, Strategy.LEAST_BUSY),
        ({"routing_strategy": "latency"}, Strategy.LATENCY),
        ({"x-routing-strategy": "Least_Latency"}, Strategy.LATENCY),
        ({"routing": {"strategy": "failover"}}, Strategy.FALLBACK),
        ({"routing": {"preferred_providers": []}}, Strategy.LEAST_BUSY),
        ({"routing": "odd", "routing_strategy": None}, Strategy.LEAST_BUSY),
    ],
)
def test_the_strategy_is_read_from_any_field(extensions: dict[str, object], strategy: Strategy) -> None:
    assert routing_strategy(extensions, Strategy.LEAST_BUSY) is strategy


@pytest.mark.parametrize("name", sorted(PLANNED))
def test_a_strategy_that_is_to_come_is_named_and_the_default_used(name: str) -> None:
    asked = {"x-routing-strategy": name}
    assert routing_strategy(asked, Strategy.LATENCY) is Strategy.LATENCY
    assert unmet_wishes(asked, Strategy.LATENCY) == (f"x-routing-strategy: {name} is not supported yet, latency is used",)


@pytest.mark.parametrize(
    ("extensions", "param"),
    [
        ({"routing_strategy": "fastest"}, "routing_strategy"),
        ({"x-routing-strategy": 7}, "x-routing-strategy"),
        ({"routing": {"strategy": {"a": "b"}}}, "routing.strategy"),
    ],
)
def test_a_strategy_that_nobody_knows_is_refused(extensions: dict[str, object], param: str) -> None:
    with pytest.raises(GatewayError) as raised:
        routing_strategy(extensions, Strategy.FALLBACK)
    assert raised.value.metadata["param"] == param
    assert "least_latency" in str(raised.value)


def test_the_preferred_provider_is_read_from_either_field() -> None:
    assert preferred_provider({"provider": "a"}) == "a"
    assert preferred_provider({"x-prefer-provider": "b"}) == "b"
    assert preferred_provider({"x-prefer-provider": 1}) == preferred_provider({}) == ""


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize(("value", "expected"), [("true", True), ("True", True), ("false", False)])
def test_a_hedge_is_wished_for_or_not_by_header(value: str, expected: bool, strategy: Strategy) -> None:
    assert wants_hedge({"x-joulegate-hedge": value}, strategy) is expected


def test_without_the_header_a_hedge_is_wished_for_where_latency_counts() -> None:
    assert [strategy for strategy in Strategy if wants_hedge({}, strategy)] == [Strategy.LATENCY]


@pytest.mark.parametrize("value", ["", "1", "yes", "after 2s"])
def test_a_hedge_that_is_neither_wished_for_nor_not_is_refused_by_name(value: str) -> None:
    with pytest.raises(GatewayError) as raised:
        wants_hedge({"x-joulegate-hedge": value}, Strategy.FALLBACK)
    assert (raised.value.http_status, raised.value.metadata["param"]) == (400, "x-joulegate-hedge")
