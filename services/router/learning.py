"""What outcomes teach about models: how well each answers prompts of each difficulty, and when it is worth finding out more.

For each cluster of prompts and each model there is a Beta distribution over the probability of a good answer. It begins at what the model's
tier promises, as firmly as after PRIOR_WEIGHT observations; what is observed fades by DISCOUNT with each further observation, for models
change behind their names. Two things follow from it. Who has proved to answer worse than another one is passed over: both were observed as
often as the prior counts, and the difference is SURE standard deviations. And Thompson sampling draws one probability from each candidate's
distribution and takes the greatest: what is little known is tried as often as it may be the best. Tries are a bounded share of all
decisions at every moment, not in the long run, and none is saved up. Pure: what draws is an argument. The state is soft: a router that
starts knows the tiers alone.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from math import sqrt
from typing import Final, Protocol

from services.router.complexity import Complexity, quality

PRIOR_WEIGHT: Final = 20.0
DISCOUNT: Final = 0.999
# At most this share of decisions tries another candidate than the one that would be chosen.
MOST_EXPLORED: Final = 0.02
# By so many standard deviations a difference is no chance.
SURE: Final = 3.0
CLUSTERS: Final = 10
# The least recently observed are forgotten beyond so many pairs of cluster and model.
MOST_ARMS: Final = 10_000
# A model of which nothing is known.
MIDDLE_TIER: Final = 3
# Good and bad outcomes, faded.
Evidence = tuple[float, float]


class Learning(StrEnum):
    """What a policy makes of outcomes."""

    # Nothing is learnt.
    OFF = "off"
    # What it would change is counted, and not done.
    SHADOW = "shadow"
    ON = "on"


class Signal(Enum):
    """What the end of an answer tells without anybody's judgement: (goodness, how many observations it is worth)."""

    # Mostly good; without it, whoever answers most would have the most against it.
    WHOLE = (1.0, 0.1)
    CUT = (0.0, 1.0)
    REFUSED = (0.0, 0.5)
    # The answer ran into its bound: it may still be what was wanted.
    LENGTH = (0.3, 0.3)

    @property
    def goodness(self) -> float:
        return float(self.value[0])

    @property
    def weight(self) -> float:
        return float(self.value[1])


class Draws(Protocol):
    """A source of randomness, such as random.Random."""

    def betavariate(self, alpha: float, beta: float) -> float: ...


@dataclass(frozen=True, slots=True)
class Arm:
    """A model, asked prompts of one cluster."""

    cluster: int
    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class Belief:
    """A Beta distribution over the probability of a good answer."""

    good: float
    bad: float

    @property
    def mean(self) -> float:
        return self.good / (self.good + self.bad)

    @property
    def weight(self) -> float:
        """How many observations it is worth."""
        return self.good + self.bad

    @property
    def is_proved(self) -> bool:
        """Whether what was observed counts no less than what was promised."""
        return self.weight >= 2 * PRIOR_WEIGHT

    @property
    def variance(self) -> float:
        return self.mean * (1.0 - self.mean) / (self.weight + 1.0)


class Posteriors:
    """The evidence of each arm, bounded in number."""

    def __init__(self, most_arms: int = MOST_ARMS, evidence: Mapping[Arm, Evidence] | None = None) -> None:
        self._most_arms = most_arms
        self._evidence: OrderedDict[Arm, Evidence] = OrderedDict(evidence or {})

    def observe(self, arm: Arm, goodness: float, weight: float = 1.0) -> None:
        """Counts an outcome, 0 bad to 1 good, as `weight` observations of at most one. Raises ValueError for what is neither."""
        if not (0.0 <= goodness <= 1.0 and 0.0 < weight <= 1.0):
            raise ValueError("goodness is from 0 to 1, and weight above 0 and at most 1")
        good, bad = self._evidence.pop(arm, (0.0, 0.0))
        kept = 1.0 - (1.0 - DISCOUNT) * weight
        self._evidence[arm] = (good * kept + goodness * weight, bad * kept + (1.0 - goodness) * weight)
        if len(self._evidence) > self._most_arms:
            self._evidence.popitem(last=False)

    def belief(self, arm: Arm, promised: float) -> Belief:
        """What is believed of an arm whose tier promises good answers with this probability, above 0 and below 1."""
        good, bad = self._evidence.get(arm, (0.0, 0.0))
        return Belief(promised * PRIOR_WEIGHT + good, (1.0 - promised) * PRIOR_WEIGHT + bad)

    def beliefs(self, complexity: Complexity, contenders: Iterable["Contender"]) -> list[Belief]:
        """How well each is believed to answer prompts like this one."""
        cluster = cluster_of(complexity)
        return [
            self.belief(Arm(cluster, contender.provider, contender.model), quality(contender.tier or MIDDLE_TIER, complexity))
            for contender in contenders
        ]

    def evidence(self, complexity: Complexity, targets: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Evidence]:
        """What was observed of these providers and models with prompts like this one, of those that were."""
        cluster = cluster_of(complexity)
        found = ((target, self._evidence.get(Arm(cluster, *target))) for target in targets)
        return {target: evidence for target, evidence in found if evidence is not None}

    def __len__(self) -> int:
        return len(self._evidence)


@dataclass(frozen=True, slots=True)
class Contender:
    """A candidate that keeps all bounds and is as good as the best by what the strategy weighs."""

    provider: str
    model: str
    # 1 to 5; 0 when it is not known.
    tier: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """Which contender learning would take, by its place; the first is the one that is chosen without it."""

    place: int = 0

    @property
    def explores(self) -> bool:
        return self.place != 0


def proved_worse(beliefs: Sequence[Belief]) -> frozenset[int]:
    """The places of those that surely answer worse than the best of those that are known."""
    known = {place: belief for place, belief in enumerate(beliefs) if belief.is_proved}
    if len(known) < 2:
        return frozenset()
    best = max(known.values(), key=lambda belief: belief.mean)
    return frozenset(place for place, belief in known.items() if best.mean - belief.mean > SURE * sqrt(best.variance + belief.variance))


class Explorer:
    """Proposes by Thompson sampling, and keeps the share of its tries."""

    def __init__(self, posteriors: Posteriors, draws: Draws, most_explored: float = MOST_EXPLORED) -> None:
        if not 0.0 <= most_explored <= MOST_EXPLORED:
            raise ValueError(f"at most {MOST_EXPLORED} of the decisions may explore")
        self._posteriors = posteriors
        self._draws = draws
        self._most_explored = most_explored
        self._decided = 0
        self._explored = 0
        self._since_explored = 0

    def evidence(self, complexity: Complexity, targets: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Evidence]:
        """What its proposals rest on."""
        return self._posteriors.evidence(complexity, targets)

    def proved_worse(self, complexity: Complexity, contenders: Sequence[Contender]) -> frozenset[int]:
        """The places of those that have proved to answer worse than another of them."""
        return proved_worse(self._posteriors.beliefs(complexity, contenders)) if len(contenders) > 1 else frozenset()

    def propose(self, complexity: Complexity, contenders: Sequence[Contender], *, may_explore: bool = True) -> Proposal:
        """Which contender to take. Counts as a decision, unless the caller does not want to be explored with and gets the first."""
        if not may_explore or not contenders:
            return Proposal()
        self._decided += 1
        self._since_explored += 1
        # Both: a share of all decisions, and of those since the last try, so that a long time without any is not made up for.
        decided = min(self._decided / (self._explored + 1), self._since_explored)
        if self._most_explored * decided < 1 or len(contenders) == 1:
            return Proposal()
        hopes = [self._draws.betavariate(belief.good, belief.bad) for belief in self._posteriors.beliefs(complexity, contenders)]
        place = max(range(len(hopes)), key=hopes.__getitem__)
        if place:
            self._explored += 1
            self._since_explored = 0
        return Proposal(place)


def cluster_of(complexity: Complexity) -> int:
    """Prompts of like difficulty are one cluster."""
    return min(int(complexity.weak_suffices * CLUSTERS), CLUSTERS - 1)
