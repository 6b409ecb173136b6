"""How hard a prompt is, as a number that thresholds may rest on.

The score has two parts: a sum over landmarks, prompts of the data whose form (prompt_features) is more or less like this one's, so that it
may bend and fades where nothing is known; and a sum over the pieces of the text (prompt_words), which tell the topic and the phrasing.
`training/complexity.py` fits both.
Calibration turns the score into probabilities: that a weaker model's answer is as good as a stronger one's, and that either answers well.
The two models of the data stand for two tiers; models of other tiers lie on the straight line through both in log-odds.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from joulegate.chat.v1 import chat_pb2
from services.router.prompt_features import Lexicon, features
from services.router.prompt_words import Floats, constant, shortened, slots_of, words_of

# The tiers that the weak and the strong model of the data stand for.
WEAK_TIER: Final = 2
STRONG_TIER: Final = 4
SHIPPED: Final = Path(__file__).parent / "data" / "complexity.npz"

# A last message shorter than this ("and why?") is read after the one before it.
_SHORT: Final = 64
# How far from the middle a feature may be, in spreads.
_LEAST: Final = constant(-3, np.float32)
_MOST: Final = constant(3, np.float32)
_ONE: Final = constant(1, np.float32)
_NO_CLASS: Final = constant(0, np.uint8)


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


@dataclass(frozen=True, slots=True)
class Lift:
    """From features to their likeness with landmarks: one over one and the mean square difference, so that it fades with the distance."""

    middle: Floats
    spread: Floats
    # (landmarks, features), placed as features are.
    landmarks: Floats
    # The landmarks' squared lengths.
    squares: Floats

    @classmethod
    def of(cls, middle: Floats, spread: Floats, landmarks: Floats) -> Self:
        """A lift to landmarks that are placed already."""
        return cls(middle, spread, landmarks, (landmarks * landmarks).sum(axis=1))

    def place(self, found: Floats) -> Floats:
        """Features centred and scaled; outliers are brought in."""
        placed: Floats = np.minimum(np.maximum((found - self.middle) / self.spread, _LEAST), _MOST)
        return placed

    def likeness(self, placed: Floats) -> Floats:
        """The likeness with each landmark, of one row of placed features or of many."""
        own = np.add.reduce(placed * placed, axis=-1, keepdims=True)
        apart: Floats = own + self.squares
        apart -= (placed + placed) @ self.landmarks.T
        apart /= np.float32(placed.shape[-1])
        apart += _ONE
        # Rounding may bring what is the same below.
        np.maximum(apart, _ONE, out=apart)
        likeness: Floats = np.divide(_ONE, apart, out=apart)
        return likeness


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores prompts."""

    lexicon: Lexicon
    lift: Lift
    form_weights: Floats
    # One weight for each slot that pieces of a text fall into; a power of two of them.
    topic_weights: Floats
    # Rows of score, P(weak suffices), P(weak answers well), P(strong answers well); between rows lies a straight line.
    calibration: tuple[tuple[float, ...], ...]

    @classmethod
    def load(cls, path: Path = SHIPPED) -> Self:
        """The scorer as it is shipped, or another one that was trained."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls.of(arrays)

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """A scorer of the arrays that its file holds."""
        lift = Lift.of(*(arrays[name].astype(np.float32) for name in ("middle", "spread", "landmarks")))
        form, topic = (arrays[name].astype(np.float32) for name in ("form_weights", "topic_weights"))
        return cls(Lexicon.of(arrays), lift, form, topic, tuple(map(tuple, arrays["calibration"].tolist())))

    def score(self, request: chat_pb2.ChatRequest) -> Complexity:
        """How hard it is what the request asks. What has no text is scored like an empty one."""
        return self.calibrated(self.raw_score(asked(request)))

    def raw_score(self, text: str) -> float:
        """The score of a text."""
        words = words_of(shortened(text))
        classes = self.lexicon.classes_of(words)
        form = self.lift.likeness(self.lift.place(features(words, classes, self.lexicon))) @ self.form_weights
        slots = slots_of(words, classes > _NO_CLASS, len(self.topic_weights))
        return float(form) + float(np.add.reduce(self.topic_weights.take(slots))) / math.sqrt(len(slots) + 1)

    def calibrated(self, score: float) -> Complexity:
        """The probabilities that belong to a score."""
        table = self.calibration
        above = bisect_left(table, score, key=itemgetter(0))
        low, high = table[max(above - 1, 0)], table[min(above, len(table) - 1)]
        part = (score - low[0]) / (high[0] - low[0]) if high is not low else 0.0
        suffices, weak, strong = (left + part * (right - left) for left, right in zip(low[1:], high[1:], strict=True))
        return Complexity(score, suffices, weak, strong)


def quality(tier: int, complexity: Complexity) -> float:
    """Probability that a model of this tier, 1 to 5, answers well. Never falls with the tier."""
    weak, strong = _log_odds(complexity.weak_quality), _log_odds(complexity.strong_quality)
    return 1 / (1 + math.exp(-(weak + (strong - weak) * (tier - WEAK_TIER) / (STRONG_TIER - WEAK_TIER))))


def asked(request: chat_pb2.ChatRequest) -> str:
    """The text that an answer is wanted to: the last message of a user, after the one before it when it is short."""
    said: list[str] = []
    for message in reversed(request.messages):
        if message.role != chat_pb2.ROLE_USER:
            continue
        said.append(_text(message))
        if len(said) == 2 or len(said[-1]) >= _SHORT:
            break
    return "\n".join(reversed(said))


def _text(message: chat_pb2.Message) -> str:
    parts: Sequence[chat_pb2.ContentPart] = message.parts.parts
    return "\n".join((message.text, *(part.text for part in parts))) if parts else message.text


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))
