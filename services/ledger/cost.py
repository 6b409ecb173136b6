"""Money: prices from the genai-prices catalogue, compiled once per model to integers.

A rate is in nano-dollars per million units, so that every published price is a whole number; the sum over all units is rounded once, half
up, to nano-dollars. With a threshold ("above 200k input tokens") the higher rate holds for all tokens, not only for those above.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from joulegate.chat.v1.receipt_pb2 import CostBasis
from services.ledger.overrides import DeclaredPrice, Overrides, Provider

if TYPE_CHECKING:  # importing the catalogue takes 0.2 s, so it happens at its first use
    from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice, TieredPrices
    from genai_prices.types import Provider as Seller

MILLION: Final = 1_000_000


class Usage(NamedTuple):
    """Tokens of one attempt. Those that are not plain input or output are parts of it; written for an hour, of all that is written."""

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Rate:
    """Nano-dollars per million units; `tiers` are (input tokens, rate above so many), highest first."""

    base: int
    tiers: tuple[tuple[int, int], ...] = ()

    def at(self, input_tokens: int) -> int:
        for threshold, rate in self.tiers:
            if input_tokens > threshold:
                return rate
        return self.base


@dataclass(frozen=True, slots=True)
class Price:
    """What the units of a model cost. Without a rate of their own, parts of the input are input, and parts of the output are output."""

    input: Rate
    output: Rate
    cached_input: Rate | None = None
    reasoning: Rate | None = None
    request: Rate | None = None
    cache_write: Rate | None = None
    cache_write_1h: Rate | None = None
    input_audio: Rate | None = None
    output_audio: Rate | None = None
    # What any token of the prompt, any token of the answer, and the request itself cost at most.
    most_input: Rate = field(init=False, repr=False, compare=False)
    most_output: Rate = field(init=False, repr=False, compare=False)
    most_request: Rate = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        of_input = (self.input, self.cached_input, self.cache_write, self.cache_write_1h, self.input_audio)
        object.__setattr__(self, "most_input", _dearest(*of_input))
        object.__setattr__(self, "most_output", _dearest(self.output, self.reasoning, self.output_audio))
        object.__setattr__(self, "most_request", _dearest(self.request))

    def most_nano_usd(self, input_tokens: int, output_tokens: int) -> int:
        """The most that an attempt of so many tokens, or of fewer, costs."""
        total = input_tokens * self.most_input.at(input_tokens) + output_tokens * self.most_output.at(input_tokens)
        return (total + self.most_request.at(input_tokens) + MILLION // 2) // MILLION

    def nano_usd(self, usage: Usage) -> int:
        """The cost of an attempt."""
        size = usage.input_tokens
        plain_input, plain_output = size, usage.output_tokens
        total = 0
        if self.cached_input is not None:
            cached = min(usage.cached_input_tokens, size)
            plain_input -= cached
            total += cached * self.cached_input.at(size)
        if self.reasoning is not None:
            reasoning = min(usage.reasoning_tokens, plain_output)
            plain_output -= reasoning
            total += reasoning * self.reasoning.at(size)
        if usage.cache_write_tokens or usage.input_audio_tokens or usage.output_audio_tokens:
            extra, plain_input, plain_output = self._rarer(usage, plain_input, plain_output)
            total += extra
        if self.request is not None:
            total += self.request.at(size)
        total += plain_input * self.input.at(size) + plain_output * self.output.at(size)
        return (total + MILLION // 2) // MILLION

    def _rarer(self, usage: Usage, plain_input: int, plain_output: int) -> tuple[int, int, int]:
        """What tokens that few requests have cost, and what is left of the others."""
        size, total = usage.input_tokens, 0
        written = min(usage.cache_write_tokens, plain_input)
        for_an_hour = min(usage.cache_write_1h_tokens, written)
        if self.cache_write_1h is not None:
            written -= for_an_hour
            plain_input -= for_an_hour
            total += for_an_hour * self.cache_write_1h.at(size)
        if self.cache_write is not None:
            plain_input -= written
            total += written * self.cache_write.at(size)
        if self.input_audio is not None:
            heard = min(usage.input_audio_tokens, plain_input)
            plain_input -= heard
            total += heard * self.input_audio.at(size)
        if self.output_audio is not None:
            spoken = min(usage.output_audio_tokens, plain_output)
            plain_output -= spoken
            total += spoken * self.output_audio.at(size)
        return total, plain_input, plain_output


def _dearest(*rates: Rate | None) -> Rate:
    """For each number of input tokens the most that one of these rates is for as many or fewer; nothing where there are none."""
    known = [rate for rate in rates if rate is not None]
    thresholds = sorted({threshold for rate in known for threshold, _ in rate.tiers}, reverse=True)

    def most(reached: int) -> int:
        steps = (tier for rate in known for threshold, tier in rate.tiers if threshold <= reached)
        return max((*(rate.base for rate in known), *steps), default=0)

    return Rate(most(-1), tuple((threshold, most(threshold)) for threshold in thresholds))


FREE: Final = Price(Rate(0), Rate(0))
# The 90th percentile of all catalogued prices, for a seller that is not in the catalogue.
DEAR: Final = DeclaredPrice(Decimal(3), Decimal(15))


class Tariff(Protocol):
    """The price of a model over time."""

    @property
    def basis(self) -> CostBasis.ValueType: ...

    def at(self, unix_s: float) -> Price:
        """The price in force."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """One price, always."""

    basis: CostBasis.ValueType
    price: Price

    def at(self, unix_s: float) -> Price:
        return self.price


@dataclass(frozen=True, slots=True)
class Dated:
    """Prices that hold from a date or at times of the day; of those that hold, the last listed wins."""

    choices: Sequence[tuple["ConditionalPrice", Price]]
    basis: CostBasis.ValueType = CostBasis.COST_BASIS_LIST

    def at(self, unix_s: float) -> Price:
        moment = datetime.fromtimestamp(unix_s, UTC)
        for condition, price in reversed(self.choices):
            if condition.constraint is None or condition.constraint.active(moment):
                return price
        return self.choices[0][1]


class Tariffs:
    """Finds a tariff: the operator's price, then free for local providers, then the catalogue, then a pessimistic price.

    That is `unknown`, or if it is not stated, what the seller asks for its dearer models.
    """

    def __init__(self, overrides: Overrides, unknown: DeclaredPrice | None = None) -> None:
        self._overrides = overrides
        self._unknown = unknown

    def tariff(self, provider: str, models: Sequence[str]) -> Tariff:
        """The tariff of the first of `models` (as served, as asked) that has one. Never raises, never nothing. Takes up to milliseconds."""
        for model in models:
            declared = self._overrides.prices.get((provider, model))
            if declared is not None:
                return Fixed(CostBasis.COST_BASIS_LIST, _declared(declared))
        facts = self._overrides.provider(provider)
        if facts.is_local:
            return Fixed(CostBasis.COST_BASIS_FREE, FREE)
        for model in models:
            listed = _listed(facts, model)
            if listed is not None:
                return listed
        return Fixed(CostBasis.COST_BASIS_UNKNOWN, self._pessimistic(facts))

    def _pessimistic(self, provider: Provider) -> Price:
        if self._unknown is not None:
            return _declared(self._unknown)
        seller = _seller(provider)
        return _declared(DEAR) if seller is None else _dear(seller.id)


def context_tokens(provider: Provider, models: Sequence[str]) -> int:
    """How many tokens the first of `models` takes in and gives that the catalogue has a figure for; 0 when it has none."""
    found = (_find_model(provider, model) for model in models)
    return next((info.context_window for info in found if info is not None and info.context_window), 0)


def _listed(provider: Provider, model: str) -> Tariff | None:
    """The catalogue's tariff, if it sells tokens of this model."""
    info = _find_model(provider, model)
    if info is None:
        return None
    if isinstance(info.prices, list):
        compiled = [(condition, compile_price(condition.prices)) for condition in info.prices]
        choices = [(condition, price) for condition, price in compiled if price is not None]
        return Dated(choices) if len(choices) == len(compiled) else None
    price = compile_price(info.prices)
    return None if price is None else Fixed(CostBasis.COST_BASIS_LIST, price)


def _find_model(provider: Provider, model: str) -> "ModelInfo | None":
    from genai_prices.data_snapshot import get_snapshot

    seller = _seller(provider)
    return None if seller is None or not model else seller.find_model(model, all_providers=get_snapshot().providers)


def _seller(provider: Provider) -> "Seller | None":
    """Whose prices hold: by the provider's name, its address or, where a protocol is one vendor's own, its kind."""
    import re

    from genai_prices.data_snapshot import find_provider_by_id, get_snapshot

    # Not by the snapshot's own lookup: its caches never forget, and clients choose the names.
    everyone = get_snapshot().providers
    seller = find_provider_by_id(everyone, provider.name)
    if seller is None and provider.base_url:
        seller = next((each for each in everyone if re.match(each.api_pattern, provider.base_url)), None)
    if seller is None and provider.kind != "openai":  # everybody speaks OpenAI's protocol: as a kind it says nothing about the seller
        seller = find_provider_by_id(everyone, provider.kind)
    return seller


@cache
def _dear(seller_id: str) -> Price:
    """What a seller asks for its dearer models: the 90th percentile of its base rates."""
    from genai_prices.data_snapshot import find_provider_by_id, get_snapshot

    seller = find_provider_by_id(get_snapshot().providers, seller_id)
    listed = (
        [] if seller is None else [model.prices[-1].prices if isinstance(model.prices, list) else model.prices for model in seller.models]
    )
    prices = [price for price in map(compile_price, listed) if price is not None and price.output.base > 0]
    if not prices:
        return _declared(DEAR)
    place = math.ceil(0.9 * len(prices)) - 1
    inputs, outputs = (
        sorted(rate.base for rate in rates) for rates in zip(*((price.input, price.output) for price in prices), strict=True)
    )
    return Price(Rate(inputs[place]), Rate(outputs[place]))


def compile_price(listed: "ModelPrice") -> Price | None:
    """The catalogue's price as integers; None when it is not by the token. Units that a chat never reports are left out."""
    if listed.input_mtok is None and listed.output_mtok is None:
        return None
    free = Rate(0)
    return Price(
        input=_rate(listed.input_mtok) or free,
        output=_rate(listed.output_mtok) or free,
        cached_input=_rate(listed.cache_read_mtok),
        reasoning=_rate(listed.output_reasoning_mtok),
        request=_rate(listed.requests_kcount, units_per_price=1000),
        cache_write=_rate(listed.cache_write_mtok),
        cache_write_1h=_rate(listed.cache_write_1h_mtok),
        input_audio=_rate(listed.input_audio_mtok),
        output_audio=_rate(listed.output_audio_mtok),
    )


def _rate(listed: "Decimal | TieredPrices | None", units_per_price: int = MILLION) -> Rate | None:
    if listed is None:
        return None
    scale = 10**9 * MILLION // units_per_price
    if isinstance(listed, Decimal):
        return Rate(_whole(listed * scale))
    return Rate(_whole(listed.base * scale), tuple((tier.start, _whole(tier.price * scale)) for tier in reversed(listed.tiers)))


def _declared(price: DeclaredPrice) -> Price:
    return Price(Rate(_whole(price.input * 10**9)), Rate(_whole(price.output * 10**9)))


def _whole(value: Decimal) -> int:
    return int(value.to_integral_value(ROUND_HALF_UP))
