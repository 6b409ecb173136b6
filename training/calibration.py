"""From scores to probabilities, by isotonic regression: the closest rates that never rise with the score."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

# No prompt is certain, and the odds must be finite.
SURE: Final = 0.98
# At least this share of the weight of all rows lies between two points of the curve.
LEAST_SHARE: Final = 0.02


def falling(values: Doubles, weight: Doubles) -> list[tuple[float, float, int]]:
    """Pools neighbours until the means fall: (mean, weight, rows) of each pool, in order."""
    pools: list[tuple[float, float, int]] = []
    for value, share in zip(values.tolist(), weight.tolist(), strict=True):
        pools.append((value, share, 1))
        while len(pools) > 1 and pools[-2][0] <= pools[-1][0]:
            last, before = pools.pop(), pools.pop()
            total = last[1] + before[1]
            pools.append(((last[0] * last[1] + before[0] * before[1]) / total, total, last[2] + before[2]))
    return pools


def calibration(scores: Doubles, outcomes: Doubles, weight: Doubles) -> Doubles:
    """Rows of a score and the rate of each column of `outcomes` there; rates fall as the score rises, and stay where no data is."""
    order = np.argsort(scores, kind="stable")
    scores, outcomes, weight = scores[order], outcomes[order], weight[order]
    bins = np.minimum((np.cumsum(weight) / weight.sum() / LEAST_SHARE).astype(int), int(1 / LEAST_SHARE) - 1)
    mass = np.asarray(np.bincount(bins, weight), np.float64)
    at = np.bincount(bins, weight * scores) / mass
    curves = []
    for column in outcomes.T:
        pools = falling(np.bincount(bins, weight * column) / mass, mass)
        curves.append(np.repeat([pool[0] for pool in pools], [pool[2] for pool in pools]))
    rates = np.clip(np.stack(curves, 1), 1 - SURE, SURE)
    return np.column_stack((at, rates))


def calibration_error(predicted: Doubles, seen: Doubles, weight: Doubles, bins: int = 10) -> float:
    """How far predictions are from what was seen, in mean over `bins` equally filled parts."""
    order = np.argsort(predicted, kind="stable")
    part = np.minimum((np.cumsum(weight[order]) / weight.sum() * bins).astype(int), bins - 1)
    off = np.bincount(part, weight[order] * (predicted - seen)[order])
    return float(np.abs(off).sum() / weight.sum())
