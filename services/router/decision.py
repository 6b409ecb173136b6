"""A routing decision with all that it rests on, so that it can be explained without being made again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.router.catalogue import Candidate
from services.router.complexity import Complexity
from services.router.demand import Demand
from services.router.families import Traits
from services.router.learning import Learning, Proposal
from services.router.prospect import UNBOUND, Constraints, Prospect
from services.router.rates import Rate
from services.router.strategies import Criterion, Strategy, Weights

# A virtual model may have hundreds of candidates. Who has failed at so many has no use for more.
MOST_TRIED: Final = 8


class Rejected(NamedTuple):
    """One who could serve the model and was not considered, and why: `excluded`, `zone`, `lacks:<capability>`, `context`,
    `constraint:<criterion>`."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class Option:
    """One who was considered, with what is expected of it."""

    candidate: Candidate
    traits: Traits
    prospect: Prospect
    output_tokens: float
    rate: Rate | None
    # The weighted product as a part of the best one's; None where the strategy weighs no figures.
    score: float | None
    is_near_best: bool
    # As good as the best by its figures, and passed over for what its answers were like.
    has_proved_worse: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """Who is tried in which order, and why."""

    ranked: Sequence[Candidate]
    strategy: Strategy
    # The model as the caller named it, and whether that is a virtual name.
    model: str
    is_virtual: bool
    # In words.
    text: str
    # Whether a second provider may be called when the first one is late.
    hedges: bool
    weights: Weights | None = None
    complexity: Complexity | None = None
    constraints: Constraints = UNBOUND
    relaxed: tuple[Criterion, ...] = ()
    rejected: Sequence[Rejected] = ()
    demand: Demand | None = None
    # In the order of `ranked`; empty where figures did not matter and nobody wanted to know them.
    options: Sequence[Option] = ()
    learning: Learning = Learning.SHADOW
    # What learning would take, or took; None where it had nothing to choose from, or was not to.
    proposal: Proposal | None = None
    # Whether the first choice is another one than it would be, to learn how well it answers.
    explored: bool = False
    wants_explanation: bool = False
    # Whether others are tried when the first one fails.
    may_fail_over: bool = True

    @property
    def tried(self) -> Sequence[Candidate]:
        """Who may be called, in this order: what a request may take at all of them is held while it runs."""
        return self.ranked[: MOST_TRIED if self.may_fail_over else 1]
