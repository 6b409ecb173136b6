"""Joules per output token at the accelerator, from the size of an open model: measured where it was, else by regression over measurements.

    ln(J) = -1.279 + 0.198 ln active + 0.764 ln(total * bits / 16) - 0.837 ln batch + 0.036 (ln batch)^2 + 0.025 ln(output tokens)

is fitted on the 565 language-model runs of the ML.ENERGY leaderboard (16 February 2026, vLLM on H100 and B200, batches of 14 to 300; the
term of the B200, -0.043, is left out). R2 is 0.916. With each model left out of the fit in turn, the factor between prediction and
measurement has a median of 1.28 and a 90th percentile of 1.95; with the batch unknown, which is the case for every hosted model, measured
over predicted at 64 has a median of 1.01, a 5th percentile of 0.39 and a 95th of 3.16. Total size predicts better than active size: small
batches wait for memory.
"""

import math
from collections.abc import Mapping
from functools import cache
from statistics import median
from typing import Final, NamedTuple

from services.ledger.aliases import spellings
from services.ledger.tables import rows
from services.ledger.weights import Weights

BATCH: Final = 64
UNKNOWN_BATCH: Final = (0.39, 3.16)
# The 90th percentile of the factor by which a model's prediction is off when its batch is known.
MODEL_ERROR: Final = 1.95
# Answers of 50 and of 7,000 tokens differ by a tenth of a factor of two, so one length stands for all.
_OUTPUT_TOKENS: Final = 400


def joules_per_output_token(weights: Weights, batch: float) -> float:
    """The regression. Outside of batches of 14 to 300 it is extrapolated."""
    depth = math.log(batch)
    return math.exp(
        -1.279
        + 0.198 * math.log(weights.active)
        + 0.764 * math.log(weights.total * weights.bits / 16)
        - 0.837 * depth
        + 0.036 * depth**2
        + 0.025 * math.log(_OUTPUT_TOKENS)
    )


class Run(NamedTuple):
    """A model's measured joules per output token, by mean batch."""

    weights: Weights
    joules: Mapping[int, float]

    @property
    def ends(self) -> tuple[float, float]:
        """Joules at the fullest and the emptiest batch. Where only the middle was measured, the other models say how far the ends are."""
        fullest, emptiest = _spread()
        middle = self.joules[BATCH]
        return self.joules.get(256, middle * fullest), self.joules.get(16, middle * emptiest)


@cache
def runs() -> Mapping[str, Run]:
    """All measured models, by their spellings."""
    return {
        name: Run(Weights(row["total"], row["active"], row["bits"]), {int(batch): joules for batch, joules in row["joules"].items()})
        for row in rows("measured_runs")
        for name in row["names"]
    }


@cache
def _spread() -> tuple[float, float]:
    whole = [run.joules for run in runs().values() if len(run.joules) > 1]
    return median(each[256] / each[BATCH] for each in whole), median(each[16] / each[BATCH] for each in whole)


def measured(model: str, bits: float | None) -> Run | None:
    """The measurement of a model, unless it is served in other bits than were measured."""
    found = next((runs()[name] for name in spellings(model) if name in runs()), None)
    return found if found is not None and bits in (None, found.weights.bits) else None
