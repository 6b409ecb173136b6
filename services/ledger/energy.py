"""Joules: what an attempt took, as an interval and its geometric mean, in whole microjoules.

    E = fixed + output * per_output + (input - 0.9 * cached) * per_input

EcoLogits (https://doi.org/10.21105/joss.07471) is the catalogue. Its estimate is affine in the output tokens, so two calls per model give
`fixed` and `per_output` with server, data centre and the spread of the model's size included. Against 26 published measurements its error
has a geometric standard deviation of 1.84: both ends are widened by 1.8. It counts nothing for the prompt; prefill is 2 FLOP per active
parameter and token at 1.2 to 1.8 pJ (an H100's 700 W at 60 to 40 % of 989 TFLOP/s), times 1.6 from GPU to machine within a factor of
1.3, times the data centre's PUE. A model that is not catalogued goes by its price (0.64 J * USD per million output tokens ^ 1.07, r 0.83,
a factor of ten either way), and without a price by the range of everything measured. Where the active size is unknown an input token
counts as a quarter of an output token. A cached input token counts a tenth of a fresh one.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from joulegate.chat.v1.receipt_pb2 import EnergyBasis
from services.ledger.aliases import Aliases
from services.ledger.cost import Usage
from services.ledger.overrides import Provider

if TYPE_CHECKING:
    from ecologits.model_repository import Model

JOULES_PER_KWH: Final = 3.6e6
WIDENING: Final = 1.8
PICOJOULES_PER_FLOP: Final = (1.2, 1.8)
HOST: Final = 1.6
HOST_SPREAD: Final = 1.3
LONG_INPUT_TOKENS: Final = 32_000
# No figure is larger than this (278 kWh): a sum of nine thousand of them still fits 64 bits.
MAX_MICROJOULES: Final = 10**15


class Span(NamedTuple):
    """Both ends of an interval, in joules."""

    low: float
    high: float

    def times(self, low: float, high: float) -> "Span":
        return Span(self.low * low, self.high * high)


class Energy(NamedTuple):
    """Whole microjoules; the point is the geometric mean of the ends."""

    low: int
    point: int
    high: int


NOTHING: Final = Energy(0, 0, 0)


@dataclass(frozen=True, slots=True)
class EnergyModel:
    """Joules of an attempt as a function of its tokens."""

    basis: EnergyBasis.ValueType
    fixed: Span
    per_output: Span
    per_input: Span

    def of(self, usage: Usage) -> Energy:
        size = usage.input_tokens
        fresh = size - 0.9 * min(usage.cached_input_tokens, size)
        # Attention grows with the square of the prompt; below this it drowns in the rest.
        attention = 1 + size / 100_000 if size > LONG_INPUT_TOKENS else 1.0
        output = usage.output_tokens
        low = self.fixed.low + output * self.per_output.low + fresh * self.per_input.low
        high = self.fixed.high + output * self.per_output.high + fresh * self.per_input.high * attention
        return interval(low, high)


def interval(low_j: float, high_j: float) -> Energy:
    """An interval of joules in whole microjoules, never zero."""
    low = min(max(1, round(low_j * 1e6)), MAX_MICROJOULES)
    high = min(max(low, round(high_j * 1e6)), MAX_MICROJOULES)
    return Energy(low, math.isqrt(low * high), high)


def _by_output(basis: EnergyBasis.ValueType, per_output: Span) -> EnergyModel:
    return EnergyModel(basis, Span(0, 0), per_output, per_output.times(0.25, 0.25))


# From a quarter of the least that was measured (8B, full batches) to half of the most that EcoLogits knows.
UNKNOWN: Final = _by_output(EnergyBasis.ENERGY_BASIS_DEFAULT, Span(0.02, 50))
# The demo provider types canned text: about 0.1 ms of a core for a request and 10 us for a token, at 5 to 20 W a core.
DEMO: Final = EnergyModel(EnergyBasis.ENERGY_BASIS_DEFAULT, Span(5e-4, 2e-3), Span(5e-5, 2e-4), Span(0, 0))
# Serving from the cache: an embedding and a search take 0.2 to 0.5 ms of a core; with the machine around it, 5 to 10 mJ.
LOOKUP: Final = interval(0.005, 0.010)
LOOKUP_BASIS: Final = EnergyBasis.ENERGY_BASIS_DEFAULT


def from_price(usd_per_million_output: float) -> EnergyModel:
    """The last resort for a paid model. The price is in US dollars per million output tokens and above zero."""
    point = 0.64 * usd_per_million_output**1.07
    return _by_output(EnergyBasis.ENERGY_BASIS_PRICE, Span(point / 10, point * 10))


class Catalogue:
    """EcoLogits, compiled model by model. Loading it takes 0.15 s, compiling a model about a millisecond."""

    def __init__(self) -> None:
        from ecologits.log import logger
        from ecologits.model_repository import models

        # Its warnings say that closed models are estimates: every figure of ours is marked as one.
        logger.setLevel(logging.ERROR)
        self._models = models
        self._aliases = Aliases((model.provider.value, model.name) for model in models.list_models())

    def find(self, provider: Provider, names: Sequence[str]) -> EnergyModel | None:
        """The model behind the first of `names` that is catalogued."""
        for name in names:
            key = self._aliases.find(provider.kind, name)
            model = None if key is None else self._models.find_model(*key)
            if model is not None:
                return _compiled(model)
        return None


def _compiled(model: "Model") -> EnergyModel:
    from ecologits.tracers.utils import PROVIDER_CONFIG_MAP, llm_impacts

    tokens = 1000
    provider = model.provider.value

    def joules(output_tokens: int) -> Span:
        # No latency: a slow network must not pass for a busy server.
        energy: Any = llm_impacts(provider, model.name, output_tokens, math.inf).energy
        span = _span(energy.value)
        return Span(span.low * JOULES_PER_KWH, span.high * JOULES_PER_KWH)

    fixed, whole = joules(0), joules(tokens)
    per_output = Span((whole.low - fixed.low) / tokens, (whole.high - fixed.high) / tokens)
    pue = _span(PROVIDER_CONFIG_MAP[provider].datacenter_pue)
    parameters = model.architecture.parameters
    active = _span(getattr(parameters, "active", parameters))  # in billions; a dense model has one figure for all
    flop = [2 * picojoules * 1e-3 for picojoules in PICOJOULES_PER_FLOP]  # joules per token and billion parameters
    per_input = active.times(*flop).times(HOST / HOST_SPREAD, HOST * HOST_SPREAD).times(*pue)
    return EnergyModel(
        EnergyBasis.ENERGY_BASIS_MODELLED, fixed.times(1 / WIDENING, WIDENING), per_output.times(1 / WIDENING, WIDENING), per_input
    )


def _span(value: Any) -> Span:
    """A number of EcoLogits, which may be a range."""
    if hasattr(value, "min"):
        return Span(float(value.min), float(value.max))
    return Span(float(value), float(value))
