"""How surely an entry's answer is right for a question at a given similarity, learned from questions that were asked anew.

The model is that of vCache (arXiv 2502.03771): P(right | s) = sigmoid(steepness * (s - threshold)) for each entry. It is fitted afresh here
by maximum a posteriori: a normal prior on the logarithm of the steepness and on the threshold stands in while there are few observations.
The posterior is taken as normal around its mode (Laplace), and an entry may serve only where the lower end of the one-sided interval of
P(right | s) reaches what the caller demands, after a minimum of observations, and never below the similarity of the nearest wrong one. The
promise is about each served answer, and holds as far as an entry's questions are alike over time. Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

MIN_OBSERVATIONS: Final = 8
# One-sided 95 %.
Z: Final = 1.645
# Priors: steepness around 20 per unit of cosine, give or take a factor of e; threshold around 0.9.
LOG_STEEPNESS: Final = (math.log(20.0), 1.0)
THRESHOLD: Final = (0.9, 0.15)
_STEPS: Final = 25
# Observations that are kept of an entry; the latest count.
MAX_OBSERVATIONS: Final = 64


class Observation(NamedTuple):
    """A question that was answered anew: how similar it was to the entry's, and whether the entry's answer would have been right."""

    similarity: float
    is_right: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """The mode of (log steepness, threshold), and the covariance around it."""

    log_steepness: float
    threshold: float
    covariance: tuple[float, float, float]

    def lower_bound(self, similarity: float) -> float:
        """The lower end of the interval of P(right) at a similarity."""
        steepness = math.exp(self.log_steepness)
        logit = steepness * (similarity - self.threshold)
        # The gradient of the logit, for the delta method.
        by_log, by_threshold = logit, -steepness
        var_log, cov, var_threshold = self.covariance
        variance = by_log * by_log * var_log + 2 * by_log * by_threshold * cov + by_threshold * by_threshold * var_threshold
        return _sigmoid(logit - Z * math.sqrt(max(0.0, variance)))


def may_serve(observations: Sequence[Observation], similarity: float, max_error: float) -> bool:
    """Whether an entry with these observations may answer a question that is so similar, at a risk of at most `max_error`."""
    if len(observations) < MIN_OBSERVATIONS:
        return False
    nearest_wrong = max((each.similarity for each in observations if not each.is_right), default=-1.0)
    return similarity > nearest_wrong and fit(observations).lower_bound(similarity) >= 1 - max_error


def fit(observations: Sequence[Observation]) -> Fit:
    """The mode by damped Newton steps, and the Laplace covariance."""
    log_steepness, threshold = LOG_STEEPNESS[0], THRESHOLD[0]
    loss = _loss(observations, log_steepness, threshold)
    for _ in range(_STEPS):
        gradient, hessian = _derivatives(observations, log_steepness, threshold)
        step = _solved(hessian, gradient)
        scale = 1.0
        while scale > 1e-4:
            moved = (log_steepness - scale * step[0], threshold - scale * step[1])
            new_loss = _loss(observations, *moved)
            if new_loss <= loss:
                break
            scale /= 2
        else:
            break
        improvement, loss = loss - new_loss, new_loss
        log_steepness, threshold = moved
        if improvement < 1e-9:
            break
    _, (a, b, d) = _derivatives(observations, log_steepness, threshold)
    determinant = a * d - b * b
    return Fit(log_steepness, threshold, (d / determinant, -b / determinant, a / determinant))


def _loss(observations: Sequence[Observation], log_steepness: float, threshold: float) -> float:
    """The negative log posterior."""
    if abs(log_steepness) > 20:
        return math.inf
    steepness = math.exp(log_steepness)
    loss = ((log_steepness - LOG_STEEPNESS[0]) / LOG_STEEPNESS[1]) ** 2 / 2 + ((threshold - THRESHOLD[0]) / THRESHOLD[1]) ** 2 / 2
    for similarity, is_right in observations:
        logit = steepness * (similarity - threshold)
        loss += _softplus(-logit if is_right else logit)
    return loss


def _derivatives(
    observations: Sequence[Observation], log_steepness: float, threshold: float
) -> tuple[tuple[float, float], tuple[float, float, float]]:
    """The gradient of the loss, and the part of its Hessian that is never negative (Gauss-Newton): (aa, ab, bb)."""
    steepness = math.exp(log_steepness)
    g_log = (log_steepness - LOG_STEEPNESS[0]) / LOG_STEEPNESS[1] ** 2
    g_threshold = (threshold - THRESHOLD[0]) / THRESHOLD[1] ** 2
    a, b, d = 1 / LOG_STEEPNESS[1] ** 2, 0.0, 1 / THRESHOLD[1] ** 2
    for similarity, is_right in observations:
        logit = steepness * (similarity - threshold)
        p = _sigmoid(logit)
        excess, weight = p - is_right, p * (1 - p)
        g_log += excess * logit
        g_threshold -= excess * steepness
        a += weight * logit * logit
        b -= weight * logit * steepness
        d += weight * steepness * steepness
    return (g_log, g_threshold), (a, b, d)


def _solved(hessian: tuple[float, float, float], gradient: tuple[float, float]) -> tuple[float, float]:
    a, b, d = hessian
    determinant = a * d - b * b
    return (d * gradient[0] - b * gradient[1]) / determinant, (a * gradient[1] - b * gradient[0]) / determinant


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
