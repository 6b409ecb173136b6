"""How hard a prompt is, as a number that thresholds may rest on.

A score is turned into probabilities by calibration: that a weaker model's answer is as good as a stronger one's, and that either answers
well. The two models of the data stand for two tiers; models of other tiers lie on the straight line through both in log-odds.
"""

import math
from dataclasses import dataclass
from typing import Final, Self

from joulegate.chat.v1 import chat_pb2

# The tiers that the weak and the strong model of the data stand for.
WEAK_TIER: Final = 2
STRONG_TIER: Final = 4


@dataclass(frozen=True, slots=True)
class Complexity:
    """What a prompt asks of a model."""

    # Higher needs a stronger model. Continuous; only its order means something.
    score: float
    # Probability that a weaker model answers as well as a stronger one.
    weak_suffices: float
    # Probabilities that a model of the weak tier, and of the strong tier, answers well; the second is never the smaller one.
    weak_quality: float
    strong_quality: float


class Scorer:
    """Scores prompts."""

    @classmethod
    def load(cls) -> Self:
        """The scorer as it is shipped."""
        return cls()

    def score(self, request: chat_pb2.ChatRequest) -> Complexity:
        """How hard the request's prompt is. Prompts without any text are as easy as can be."""
        score = math.log1p(sum(len(message.text) for message in request.messages)) - 6
        weak, strong = _sigmoid(0.8 - 0.2 * score), _sigmoid(1.5 - 0.2 * score)
        return Complexity(score, 1 - strong * (1 - weak), weak, strong)


def quality(tier: int, complexity: Complexity) -> float:
    """Probability that a model of this tier, 1 to 5, answers well. Never falls with the tier."""
    weak, strong = _log_odds(complexity.weak_quality), _log_odds(complexity.strong_quality)
    return _sigmoid(weak + (strong - weak) * (tier - WEAK_TIER) / (STRONG_TIER - WEAK_TIER))


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _sigmoid(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))
