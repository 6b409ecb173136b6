"""Money is what the catalogue says, to the nano-dollar, and never silently nothing."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

import pytest
from genai_prices import Usage as ListedUsage
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice
from genai_prices.types import Provider as Seller
from hypothesis import given, settings
from hypothesis import strategies as st

from joulegate.chat.v1.receipt_pb2 import CostBasis
from services.ledger.cost import Dated, Tariff, Tariffs, Usage, compile_price
from services.ledger.overrides import DeclaredPrice, Overrides, Provider
from tests.unit.ledger.samples import UNKNOWN_PRICE

USAGE = Usage(1_000_000, 0, 1_000_000, 0)
TOKENS = st.integers(0, 3_000_000)
LISTED = [
    (provider, model)
    for provider in get_snapshot().providers
    for model in provider.models
    if not isinstance(model.prices, list) and compile_price(model.prices) is not None
]
DATED = [(provider, model) for provider in get_snapshot().providers for model in provider.models if isinstance(model.prices, list)]


def tariffs(overrides: Overrides | None = None) -> Tariffs:
    return Tariffs(overrides or Overrides(), UNKNOWN_PRICE)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    size, output = draw(TOKENS), draw(TOKENS)
    return parts_of(size, output, lambda most: draw(st.integers(0, most)))


def parts_of(size: int, output: int, some: Callable[[int], int]) -> Usage:
    """A usage of so many tokens, whose parts do not overlap."""
    cached = some(size)
    written = some(size - cached)
    heard, reasoning = some(size - cached - written), some(output)
    return Usage(size, cached, output, reasoning, written, some(written), heard, some(output - reasoning))


def nano_usd(price: Decimal) -> int:
    return int((price * 10**9).to_integral_value(ROUND_HALF_UP))


def as_listed(usage: Usage) -> ListedUsage:
    return ListedUsage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        input_audio_tokens=usage.input_audio_tokens,
        output_audio_tokens=usage.output_audio_tokens,
        cache_audio_read_tokens=0,
    )


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(LISTED), usages())
def test_compiled_price_equals_the_catalogue(listed: tuple[Seller, ModelInfo], usage: Usage) -> None:
    provider, model = listed
    assert isinstance(model.prices, ModelPrice)
    price = compile_price(model.prices)
    assert price is not None
    expected = model.calc_price(as_listed(usage), provider).total_price
    # Prices such as 1.0399999999999998 are compiled to what was meant, which can turn a rounding.
    assert abs(price.nano_usd(usage) - nano_usd(expected)) <= has_noise(model.prices)


def has_noise(prices: ModelPrice) -> bool:
    """Whether a price has more than the nine decimals of a nano-dollar."""
    exponents = (value.as_tuple().exponent for value in vars(prices).values() if isinstance(value, Decimal))
    return any(isinstance(exponent, int) and exponent < -9 for exponent in exponents)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(DATED), usages(), st.datetimes(datetime(2023, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)))
def test_dated_price_equals_the_catalogue_at_that_time(listed: tuple[Seller, ModelInfo], usage: Usage, moment: datetime) -> None:
    provider, model = listed
    reference = next((name for name in (model.id, model.id.lower()) if provider.find_model(name) is model), None)
    if reference is None:
        return
    tariff = tariffs().tariff(provider.id, [reference])
    if tariff.basis == CostBasis.COST_BASIS_UNKNOWN:
        return
    expected = model.calc_price(as_listed(usage), provider, genai_request_timestamp=moment).total_price
    assert tariff.at(moment.timestamp()).nano_usd(usage) == nano_usd(expected)


def sold() -> list[tuple[str, str, bool]]:
    """Every model that a seller of the catalogue sells by the token, itself or, marked so, under the name that another one gives it."""
    everyone = get_snapshot().providers
    own = [(seller.id, model.id, False) for seller in everyone for model in seller.models]
    of_others = [
        (seller.id, model.id, True)
        for seller in everyone
        for other in everyone
        if other.id in (seller.fallback_model_providers or ())
        for model in other.models
    ]
    return own + of_others


def test_five_thousand_usages_cost_what_the_catalogue_says() -> None:
    """Models of all sellers and their fall-backs, at any time, with tokens of all kinds, on both sides of every threshold."""
    draw = random.Random(5000)
    offers, found = sold(), tariffs()
    known: dict[tuple[str, str], Tariff] = {}
    seen: Counter[str] = Counter()
    while seen["usages"] < 5000:
        seller, model, is_fallback = draw.choice(offers)
        tariff = known.setdefault((seller, model), found.tariff(seller, [model]))
        if tariff.basis != CostBasis.COST_BASIS_LIST:
            continue
        size, output = (draw.choice((0, 1, 128_000, 200_000, 200_001, 272_001, draw.randrange(3_000_000))) for _ in range(2))
        usage = parts_of(size, output, lambda most: draw.randint(0, most))
        moment = datetime.fromtimestamp(draw.uniform(1.70e9, 1.85e9), UTC)
        listed = calc_price(as_listed(usage), model, provider_id=seller, genai_request_timestamp=moment)
        price = tariff.at(moment.timestamp())
        assert abs(price.nano_usd(usage) - nano_usd(listed.total_price)) <= has_noise(listed.model_price), (seller, model, usage, moment)
        seen += Counter(usages=1, fallback=is_fallback, dated=isinstance(tariff, Dated), noisy=has_noise(listed.model_price))
        seen += Counter(tiered=bool(price.input.tiers), cached=price.cached_input is not None and usage.cached_input_tokens > 0)
        seen += Counter(
            written=price.cache_write is not None and usage.cache_write_tokens > 0,
            for_an_hour=price.cache_write_1h is not None and usage.cache_write_1h_tokens > 0,
            heard=price.input_audio is not None and usage.input_audio_tokens > 0,
            spoken=price.output_audio is not None and usage.output_audio_tokens > 0,
        )
    assert min(seen[kind] for kind in ("fallback", "dated", "tiered", "cached", "written", "for_an_hour")) > 20
    # Few models are sold by their sounds.
    assert min(seen["heard"], seen["spoken"]) > 3
    # Rounding may turn only where a price has more decimals than a nano-dollar.
    assert seen["noisy"] < 500


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5"), ("gemini", "gemini-2.5-pro"), ("groq", "llama-3.1-8b-instant")],
)
def test_our_providers_are_found_in_the_catalogue(provider: str, model: str) -> None:
    tariff = tariffs().tariff(provider, [model])
    assert tariff.basis == CostBasis.COST_BASIS_LIST
    moment = datetime(2026, 6, 1, tzinfo=UTC)
    seller = "google" if provider == "gemini" else provider
    expected = calc_price(as_listed(USAGE), model, provider_id=seller, genai_request_timestamp=moment).total_price
    assert tariff.at(moment.timestamp()).nano_usd(USAGE) == nano_usd(expected)


def test_threshold_price_holds_for_all_tokens_above_it_and_for_none_at_it() -> None:
    price = tariffs().tariff("gemini", ["gemini-2.5-pro"]).at(0)
    assert price.nano_usd(Usage(200_000, 0, 0, 0)) == 250_000_000
    assert price.nano_usd(Usage(200_001, 0, 0, 0)) == 500_002_500


def test_cached_input_is_cheaper_and_more_of_it_than_input_counts_as_all() -> None:
    price = tariffs().tariff("openai", ["gpt-4o"]).at(0)
    assert price.nano_usd(Usage(1000, 1000, 0, 0)) == 1_250_000
    assert price.nano_usd(Usage(1000, 5000, 0, 0)) == 1_250_000


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "no-such"), ("lab", "large"), ("", ""), ("openai", ""), ("\0", "((("), ("x" * 999, "ä")]
)
def test_unknown_model_costs_the_pessimistic_price(provider: str, model: str) -> None:
    tariff = tariffs().tariff(provider, [model])
    assert tariff.basis == CostBasis.COST_BASIS_UNKNOWN
    assert tariff.at(0).nano_usd(USAGE) == 18_000_000_000


def test_without_a_stated_price_an_unknown_model_costs_what_its_seller_asks_for_the_dearer_ones() -> None:
    found = Tariffs(Overrides())
    unknown, usual = found.tariff("openai", ["no-such"]), found.tariff("openai", ["gpt-4o"])
    assert unknown.basis == CostBasis.COST_BASIS_UNKNOWN
    assert unknown.at(0).nano_usd(USAGE) > usual.at(0).nano_usd(USAGE)
    prices = [
        price
        for seller, model in LISTED
        if seller.id == "openai" and isinstance(model.prices, ModelPrice) and (price := compile_price(model.prices)) and price.output.base
    ]
    cheaper = sum(price.output.base <= unknown.at(0).output.base for price in prices)
    assert 0.85 <= cheaper / len(prices) <= 0.97
    assert found.tariff("groq", ["no-such"]).at(0).nano_usd(USAGE) < unknown.at(0).nano_usd(USAGE)
    assert found.tariff("lab", ["no-such"]).at(0).nano_usd(USAGE) == 18_000_000_000


def test_model_sold_by_another_unit_than_tokens_is_unknown() -> None:
    assert tariffs().tariff("groq", ["whisper-large-v3"]).basis == CostBasis.COST_BASIS_UNKNOWN


def test_local_providers_are_free() -> None:
    overrides = Overrides(providers={"shed": Provider("shed", "ollama")})
    for provider in ("demo", "ollama", "shed"):
        tariff = tariffs(overrides).tariff(provider, ["llama3.1:8b"])
        assert (tariff.basis, tariff.at(0).nano_usd(USAGE)) == (CostBasis.COST_BASIS_FREE, 0)


def test_declared_price_beats_everything() -> None:
    price = DeclaredPrice(Decimal("0.1"), Decimal("0.2"))
    overrides = Overrides(prices={("openai", "gpt-4o"): price, ("ollama", "big"): price})
    for provider, model in overrides.prices:
        tariff = tariffs(overrides).tariff(provider, ["served-name", model])
        assert (tariff.basis, tariff.at(0).nano_usd(USAGE)) == (CostBasis.COST_BASIS_LIST, 300_000_000)


def test_served_model_is_priced_before_the_asked_one() -> None:
    served = tariffs().tariff("openai", ["gpt-4o-mini", "gpt-4o"])
    assert served.at(0) == tariffs().tariff("openai", ["gpt-4o-mini"]).at(0)
    assert tariffs().tariff("openai", ["no-such", "gpt-4o"]).basis == CostBasis.COST_BASIS_LIST


def test_seller_of_a_configured_provider_is_known_by_its_address_or_kind() -> None:
    overrides = Overrides(
        providers={
            "fast": Provider("fast", "openai", "https://api.groq.com/openai/v1"),
            "eu": Provider("eu", "azure"),
            "lab": Provider("lab", "openai", "http://127.0.0.1:9000/v1"),
        }
    )
    found = tariffs(overrides)
    assert found.tariff("fast", ["llama-3.1-8b-instant"]).at(0) == tariffs().tariff("groq", ["llama-3.1-8b-instant"]).at(0)
    assert found.tariff("eu", ["gpt-4o"]).basis == CostBasis.COST_BASIS_LIST
    # Whoever speaks OpenAI's protocol is not OpenAI.
    assert found.tariff("lab", ["gpt-4o"]).basis == CostBasis.COST_BASIS_UNKNOWN
