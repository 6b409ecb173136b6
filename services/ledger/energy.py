"""Joules: what an attempt took, as an interval and its geometric mean, in whole microjoules.

    E = fixed + output * per_output + (input - 0.9 * cached) * per_input

All of it is at the data centre's meter. What is known at the accelerator is multiplied by 1.6 from accelerator to machine, idle ones
included (Google's breakdown of August 2025: 58 of 100 parts are the accelerator's, 35 the machine's), within a factor of 1.3, and by the
data centre's PUE. Prefill is 2 FLOP per active parameter and token at 1.2 to 1.8 pJ (an H100's 700 W at 60 to 40 % of 989 TFLOP/s). A
machine of one's own has no data centre around it, and batches of one to a few; nobody has measured its prefill for us, so 2 to 20 pJ stand
for everything from a card that is half used to a laptop. A model known only by its price takes 0.64 J * USD per million output tokens ^
1.07 (r 0.83, a factor of ten either way), one that is not known at all the range of everything measured. Where the active size is unknown
an input token counts as a quarter of an output token. A cached input token counts a tenth of a fresh one.
"""

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from joulegate.chat.v1.receipt_pb2 import EnergyBasis
from joulegate.ledger.v1.entry_pb2 import EnergyBoundary
from services.ledger.cost import Usage
from services.ledger.overrides import DeclaredEnergy
from services.ledger.regression import BATCH, MODEL_ERROR, UNKNOWN_BATCH, Run, joules_per_output_token
from services.ledger.weights import Weights
from services.runtime import lookup

PICOJOULES_PER_FLOP: Final = (1.2, 1.8)
PICOJOULES_PER_FLOP_HERE: Final = (2.0, 20.0)
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
    boundary: EnergyBoundary.ValueType = EnergyBoundary.ENERGY_BOUNDARY_FACILITY

    def of(self, usage: Usage) -> Energy:
        size, cached, output = usage[:3]
        fresh = size - 0.9 * (cached if cached < size else size)
        low = self.fixed[0] + output * self.per_output[0] + fresh * self.per_input[0]
        high = self.fixed[1] + output * self.per_output[1]
        # Attention grows with the square of the prompt; below this it drowns in the rest.
        high += fresh * self.per_input[1] * (1 + size / 100_000 if size > LONG_INPUT_TOKENS else 1)
        return interval(low, high)


def interval(low_j: float, high_j: float) -> Energy:
    """An interval of joules in whole microjoules, never zero."""
    low, high = round(low_j * 1e6), round(high_j * 1e6)
    # Comparisons, for this runs with every row and min() and max() take as long as all the rest.
    if low < 1:
        low = 1
    if high < low:
        high = low
    if high > MAX_MICROJOULES:
        low, high = min(low, MAX_MICROJOULES), MAX_MICROJOULES
    return Energy(low, math.isqrt(low * high), high)


# Machines of one's own have no data centre around them.
HERE: Final = EnergyBoundary.ENERGY_BOUNDARY_IT


def _by_output(basis: EnergyBasis.ValueType, per_output: Span) -> EnergyModel:
    return EnergyModel(basis, Span(0, 0), per_output, per_output.times(0.25, 0.25))


# From a quarter of the least that was measured (8B, full batches) to half of the most that EcoLogits knows.
UNKNOWN: Final = _by_output(EnergyBasis.ENERGY_BASIS_DEFAULT, Span(0.02, 50))
# The demo provider types canned text: about 0.1 ms of a core for a request and 10 us for a token, at 5 to 20 W a core.
DEMO: Final = EnergyModel(EnergyBasis.ENERGY_BASIS_DEFAULT, Span(5e-4, 2e-3), Span(5e-5, 2e-4), Span(0, 0), HERE)
LOOKUP: Final = Energy(lookup.LOW_MICROJOULES, lookup.MICROJOULES, lookup.HIGH_MICROJOULES)


def from_price(usd_per_million_output: float) -> EnergyModel:
    """The last resort for a paid model. The price is in US dollars per million output tokens and above zero."""
    point = 0.64 * usd_per_million_output**1.07
    return _by_output(EnergyBasis.ENERGY_BASIS_PRICE, Span(point / 10, point * 10))


def measured(run: Run, pue: Span) -> EnergyModel:
    """A hosted model that was measured: from the fullest batch to the emptiest."""
    return _hosted(EnergyBasis.ENERGY_BASIS_BENCHMARK, Span(*run.ends), run.weights, pue)


def hosted(weights: Weights, pue: Span) -> EnergyModel:
    """An open model in somebody's data centre, whose batch nobody tells."""
    middle = joules_per_output_token(weights, BATCH)
    return _hosted(EnergyBasis.ENERGY_BASIS_REGRESSION, Span(middle, middle).times(*UNKNOWN_BATCH), weights, pue)


def _hosted(basis: EnergyBasis.ValueType, per_output: Span, weights: Weights, pue: Span) -> EnergyModel:
    host = (HOST / HOST_SPREAD, HOST * HOST_SPREAD)
    return EnergyModel(basis, Span(0, 0), per_output.times(*host).times(*pue), prefill(Span(weights.active, weights.active), pue))


def prefill(active: Span, pue: Span) -> Span:
    """Joules per input token of a hosted model with so many billions of active parameters."""
    return _prefill(active, PICOJOULES_PER_FLOP).times(*pue)


def here(weights: Weights, largest_batch: float) -> EnergyModel:
    """An open model on a machine of one's own."""
    low = joules_per_output_token(weights, largest_batch) / MODEL_ERROR * HOST / HOST_SPREAD
    high = joules_per_output_token(weights, 1) * MODEL_ERROR * HOST * HOST_SPREAD
    per_input = _prefill(Span(weights.active, weights.active), PICOJOULES_PER_FLOP_HERE)
    return EnergyModel(EnergyBasis.ENERGY_BASIS_REGRESSION, Span(0, 0), Span(low, high), per_input, HERE)


def _prefill(active: Span, picojoules: tuple[float, float]) -> Span:
    joules_per_billion = [2 * each * 1e-3 for each in picojoules]
    return active.times(*joules_per_billion).times(HOST / HOST_SPREAD, HOST * HOST_SPREAD)


def declared(stated: DeclaredEnergy) -> EnergyModel:
    """What the operator has measured: taken at its word."""
    output = stated.joules_per_output_token
    per_input = output / 4 if stated.joules_per_input_token is None else stated.joules_per_input_token
    return EnergyModel(EnergyBasis.ENERGY_BASIS_DECLARED, Span(0, 0), Span(output, output), Span(per_input, per_input))
