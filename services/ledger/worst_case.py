"""The most that a request can be booked with: exactly, for what is reserved, and as a line, for what routers decide by themselves.

Every figure of a row grows with its tokens, so the worst case of a call is the row of its longest prompt and answer. A line is above the
figures: each rate is the dearest of its tokens', and the geometric mean of the ends of the energy is below any weighted mean of them,
sqrt(lh) <= (wl + h/w) / 2; the weight is the one with which both are the same for a call that only writes.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from joulegate.ledger.v1 import reservation_pb2 as pb
from services.ledger.budgets import Amounts
from services.ledger.carbon import Grid
from services.ledger.cost import MILLION, Usage
from services.ledger.energy import LONG_INPUT_TOKENS, EnergyModel
from services.ledger.figures import Rates

_MICROJOULES_PER_KWH: Final = 3_600_000_000_000
# A line that is steeper cannot be sent; nothing real is.
_STEEPEST: Final = 2**60


class Size(NamedTuple):
    """How large a request may be: its prompt, and how many answers a call gives."""

    input_tokens: int
    answers: int = 1


def amounts(rates: Sequence[Rates], size: Size, calls: int, output_tokens: int) -> Amounts:
    """What so many calls hold, each answer with at most so many tokens: all are sent the prompt, one answers."""
    prompt, output = size.input_tokens, output_tokens * size.answers
    nano_usd, microjoules, micrograms = _dearest(rates, prompt, output)
    if calls > 1:
        asked = _dearest(rates, prompt, 0)
        nano_usd += (calls - 1) * asked[0]
        microjoules += (calls - 1) * asked[1]
        micrograms += (calls - 1) * asked[2]
    return Amounts(nano_usd, calls * prompt + output, microjoules, micrograms)


def _dearest(rates: Sequence[Rates], input_tokens: int, output_tokens: int) -> tuple[int, int, int]:
    nano_usd = microjoules = micrograms = 0
    usage = Usage(input_tokens, 0, output_tokens, 0)
    for each in rates:
        point = each.energy.of(usage).point
        nano_usd = max(nano_usd, each.price.most_nano_usd(input_tokens, output_tokens))
        microjoules = max(microjoules, point)
        micrograms = max(micrograms, each.grid.micrograms(point))
    return nano_usd, microjoules, micrograms


def line(provider: str, model: str, rates: Rates) -> pb.PricedTarget:
    """The line of a target; one that holds for no prompt where there is none that fits the message."""
    price = rates.price
    most = (price.most_request, price.most_input, price.most_output)
    longest = min([LONG_INPUT_TOKENS, *(threshold for rate in most for threshold, _ in rate.tiers)])
    fixed_j, input_j, output_j = _energy_line(rates.energy)
    # Ends of intervals are rounded, and are at least one: two more are above that.
    lines = (
        _line(-(-price.most_request.base // MILLION), fixed_j * 1e6, rates.grid),
        # Of a million tokens.
        _line(price.most_input.base, input_j * 1e12, rates.grid),
        _line(price.most_output.base, output_j * 1e12, rates.grid),
    )
    if any(amount > _STEEPEST for each in lines for amount in each):
        return pb.PricedTarget(provider=provider, model=model)
    fixed, per_input, per_output = (message_of(each) for each in lines)
    return pb.PricedTarget(
        provider=provider,
        model=model,
        fixed=fixed,
        per_million_input_tokens=per_input,
        per_million_output_tokens=per_output,
        max_input_tokens=longest,
    )


def _energy_line(model: EnergyModel) -> tuple[float, float, float]:
    low, high = model.per_output
    weight = math.sqrt(high / low) if low > 0 and high > 0 else 1.0

    def mean(span: tuple[float, float]) -> float:
        # A little more than that, for it is computed with rounding.
        return (weight * span[0] + span[1] / weight) / 2 * (1 + 1e-9)

    return mean(model.fixed), mean(model.per_input), mean(model.per_output)


def _line(nano_usd: int, microjoules: float, grid: Grid) -> Amounts:
    micrograms = microjoules * grid.micrograms_per_kwh / _MICROJOULES_PER_KWH
    return Amounts(nano_usd, 0, math.ceil(microjoules) + 2, math.ceil(micrograms) + 2)


def message_of(of: Amounts) -> pb.Amounts:
    return pb.Amounts(nano_usd=of.nano_usd, tokens=of.tokens, microjoules=of.microjoules, micrograms=of.micrograms)
