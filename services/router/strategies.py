"""The strategies that a request can be routed by: their names, also those of earlier gateways, and what weighs how much in each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final


class Strategy(StrEnum):
    """How the first candidate is chosen."""

    # By the figures of this request, weighed against each other.
    ECO = "eco"
    BALANCED = "balanced"
    COST = "cost"
    QUALITY = "quality"
    CARBON = "carbon"
    # By how soon an answer begins.
    LATENCY = "latency"
    # By turns, by chance, by load, in the configured order.
    ROUND_ROBIN = "round_robin"
    WEIGHTED_RANDOM = "weighted_random"
    RANDOM = "random"
    LEAST_BUSY = "least_busy"
    FALLBACK = "fallback"


class Criterion(StrEnum):
    """What a candidate is judged by."""

    COST = "cost"
    ENERGY = "energy"
    CARBON = "carbon"
    LATENCY = "latency"
    RELIABILITY = "reliability"
    QUALITY = "quality"


@dataclass(frozen=True, slots=True)
class Weights:
    """What each criterion counts; a field for each Criterion. Only their ratios matter."""

    cost: float = 0.0
    energy: float = 0.0
    carbon: float = 0.0
    latency: float = 0.0
    reliability: float = 0.0
    quality: float = 0.0

    def shares(self) -> dict[str, float]:
        """Of those that count at all, how much: they add up to 1. At least one must."""
        total = self.cost + self.energy + self.carbon + self.latency + self.reliability + self.quality
        given = {
            "cost": self.cost,
            "energy": self.energy,
            "carbon": self.carbon,
            "latency": self.latency,
            "reliability": self.reliability,
            "quality": self.quality,
        }
        return {name: value / total for name, value in given.items() if value > 0}


# The presets of earlier gateways. `eco` is what MODEL_ROUTER_WEIGHTS has always said; `carbon` is ours, shaped like `cost`.
PRESETS: Final[Mapping[Strategy, Weights]] = {
    Strategy.ECO: Weights(cost=0.35, latency=0.2, reliability=0.3, energy=0.15),
    Strategy.BALANCED: Weights(cost=0.4, quality=0.35, latency=0.25),
    Strategy.COST: Weights(cost=0.8, quality=0.1, latency=0.1),
    Strategy.QUALITY: Weights(cost=0.05, quality=0.85, latency=0.1),
    Strategy.CARBON: Weights(carbon=0.8, quality=0.1, latency=0.1),
}
# Names of earlier gateways, and what people call the same thing.
_ALIASES: Final[Mapping[Strategy, Iterable[str]]] = {
    Strategy.ECO: ("energy", "green"),
    Strategy.BALANCED: ("auto",),
    Strategy.COST: ("lowest_cost", "cheap"),
    Strategy.QUALITY: ("highest_quality",),
    Strategy.LATENCY: ("least_latency", "fast"),
    Strategy.FALLBACK: ("failover",),
}
STRATEGIES: Final[Mapping[str, Strategy]] = {
    name: strategy for strategy in Strategy for name in (strategy.value, *_ALIASES.get(strategy, ()))
}


def named(name: str) -> Strategy | None:
    """The strategy of that name, in any case, with `-` or `_` between words; None for an unknown one."""
    return STRATEGIES.get(name.strip().lower().replace("-", "_"))


def read_weights(text: str) -> Weights:
    """Weights as `cost=0.35,latency=0.2`; a criterion that is not named does not count. Raises ValueError."""
    given: dict[str, float] = {}
    known = [field.name for field in fields(Weights)]
    for part in text.split(","):
        name, equals, value = (piece.strip().lower() for piece in part.partition("="))
        if not equals or name not in known:
            raise ValueError(f"must be like cost=0.35,latency=0.2 with names of {', '.join(known)}")
        try:
            given[name] = float(value)
        except ValueError:
            raise ValueError(f"{name} must be a number") from None
        # NaN fails the comparison.
        if not 0 <= given[name] <= 1000:
            raise ValueError(f"{name} must be a number from 0 to 1000")
    if not sum(given.values()) > 0:
        raise ValueError("at least one weight must be above 0")
    return Weights(**given)
