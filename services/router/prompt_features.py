"""What can be counted in a prompt and tells of its difficulty, whatever the prompt is about.

Three counts carry nearly all features: how often each byte occurs, how often each kind of word does (a word that negates, a word of
arithmetic, a long one ...), and how rare the words are in texts at large. Each count is one operation over an array.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import log, log1p, sqrt
from operator import mul
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from services.router.prompt_words import (
    CLASS_BITS,
    DIGITS,
    LETTERS,
    MOST_LENGTH,
    RARITY_BITS,
    RARITY_UNIT,
    SIGN,
    UNRANKED,
    Bytes,
    Floats,
    Hashes,
    Indices,
    Words,
    constant,
    distinct,
)

# Words that mark how something is asked, not what it is about.
WORDS: Final = {
    "arithmetic": "each every per half twice double triple times percent remaining left total than fewer average altogether "
    "spend spends cost costs pay paid earn earns sell sold buy bought hour hours minute minutes day days week weeks month months year "
    "years mile miles dollar dollars cent cents",
    "negation": "not except least never no none neither nor without false incorrect cannot",
    "which": "which what who when where whom whose",
    "how": "how",
    "many": "many much",
    "why": "why explain because reason cause",
    "condition": "if then suppose assume given let whether unless",
    "task": "prove derive find determine calculate compute solve evaluate show write implement",
    "comparison": "more less most best likely greater larger smaller higher lower better rather",
    "person": "i my me you your he she his her him they them their we our",
    "reference": "following below above statement statements scenario passage true false correct answer option",
    "connective": "however therefore thus although while since so but and or",
    "function": "the of a an in to is for on with as by at from that it was are be",
    "quantifier": "all any some both only always every must exactly",
    "numeral": "one two three four five six seven eight nine ten dozen hundred thousand million half twice third quarter",
    "exception": "except",
    "best": "best",
    "truth": "true",
    "statement": "statement",
    "answer": "answer",
    "first_item": "i",
    "second_item": "ii",
    "blank": "_",
    "formula": "$",
    "escape": "\\",
}
PHRASES: Final = ("how many", "how much", "of the following", "is not")
_PHRASES: Final = tuple(phrase.encode() for phrase in PHRASES)
# Words beyond these ranks, and those that have none, are rare; words longer than these are long.
RARE: Final = (1_000, 10_000, 50_000)
LONG: Final = (7, 11)
# Digits of a year.
_YEAR: Final = 4

_OPTION = re.compile(r"\n\s?\(?[A-J][.)] ")
_BYTES: Final = {
    "digit": b"0123456789",
    "upper": bytes(range(65, 91)),
    "comma": b",",
    "not_ascii": bytes(range(128, 256)),
    "operator": b"+-*/^=<>",
    "markup": b"$\\",
    "code": b"{};_",
    "bracket": b"(",
    "quote": b'"',
    "question": b"?",
    "stop": b".!?",
    "percent": b"%",
    "line": b"\n",
    "colon": b":",
}
_BYTE_CLASSES: Final = np.array([[byte in members for byte in range(256)] for members in _BYTES.values()], np.float32)
# Of the others, a share among all bytes says little.
_BYTE_RATES: Final = 4
_DIGIT: Final = list(_BYTES).index("digit")
_STOP: Final = list(_BYTES).index("stop")

# By the shape of a word, what it counts for; the sums are of letters, for mean and spread of lengths.
_SHAPE_COUNTS: Final = 4
_SHAPE_CLASSES: Final = np.ascontiguousarray(
    np.array(
        [
            [
                *(shape & 1, is_word and length > LONG[0], is_word and length > LONG[1], shape >> 5 == DIGITS and length == _YEAR),
                *(is_word, is_word * length, is_word * length**2),
            ]
            for shape in range(4 << 5)
            for length, is_word in [((shape >> 1) & MOST_LENGTH, shape >> 5 == LETTERS)]
        ],
        np.float32,
    ).T
)
# By rarity: beyond which ranks, and sums for mean and spread.
_RARITY_COUNTS: Final = len(RARE) + 1
_RARITY_CLASSES: Final = np.array(
    [
        [*(rarity >= RARITY_UNIT * log(rank) for rank in RARE), rarity == UNRANKED, rarity / RARITY_UNIT, (rarity / RARITY_UNIT) ** 2]
        for rarity in range(UNRANKED + 1)
    ],
    np.float32,
)

# As arrays: the kinds of words, and which bits of a hash are not the leading ones.
_LETTERS: Final = constant(LETTERS, np.uint8)
_DIGITS: Final = constant(DIGITS, np.uint8)
_BELOW_CLASS: Final = constant(64 - CLASS_BITS, np.uint64)
_BELOW_RARITY: Final = constant(64 - RARITY_BITS, np.uint64)

_OF_WORDS: Final = (
    *WORDS,
    "capitalised",
    *(f"longer_than_{length}" for length in LONG),
    "years",
    *(f"beyond_{rank}" for rank in RARE),
    "unranked",
)
NAMES: Final = (
    *(f"{name}_count" for name in (*_BYTES, *_OF_WORDS)),
    *(f"{name}_rate" for name in (*list(_BYTES)[:_BYTE_RATES], *_OF_WORDS)),
    *("bytes", "words", "bytes_per_word", "letters", "letters_spread", "words_per_sentence", "distinct", "sentences"),
    *("rarity", "rarity_spread", "rarest", "numbers", "distinct_numbers", "longest_number", "digits_per_number"),
    *("options", "longest_line", "length_of_line", "line_spread"),
    *(phrase.replace(" ", "_") for phrase in PHRASES),
)


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What is known of single words, by the leading bits of their hashes."""

    # The class of a word; 0 for what is in none.
    classes: Bytes
    # Row by class, a 1 for each of WORDS that the words of it are of.
    kinds: Floats
    # How rare a word is in texts at large, in units of RARITY_UNIT.
    rarity: Bytes

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The lexicon of a scorer's file."""
        return cls(arrays["classes"], arrays["kinds"].astype(np.float32), arrays["rarity"])

    def classes_of(self, words: Words) -> Bytes:
        """The class of each word."""
        classes: Bytes = self.classes[(words.hashes >> _BELOW_CLASS).view(np.int64)]
        return classes

    def rarity_of(self, hashes: Hashes) -> Bytes:
        """The rarity of each of these words."""
        rarity: Bytes = self.rarity[(hashes >> _BELOW_RARITY).view(np.int64)]
        return rarity


def features(words: Words, classes: Bytes, lexicon: Lexicon) -> Floats:
    """The features of a text in the order of NAMES; `classes` are those of its words."""
    rarity = np.bincount(lexicon.rarity_of(words.hashes[words.kind == _LETTERS]), minlength=len(_RARITY_CLASSES))
    shapes = np.bincount(words.shape, minlength=_SHAPE_CLASSES.shape[1])
    # Counts in single precision, for products of mixed kinds are slow.
    by_byte = _BYTE_CLASSES @ np.bincount(words.raw, minlength=256).astype(np.float32)
    by_kind = np.bincount(classes, minlength=len(lexicon.kinds)).astype(np.float32) @ lexicon.kinds
    by_shape = _SHAPE_CLASSES @ shapes.astype(np.float32)
    by_rarity = rarity.astype(np.float32) @ _RARITY_CLASSES
    found = np.concatenate((by_byte, by_kind, by_shape[:_SHAPE_COUNTS], by_rarity[:_RARITY_COUNTS]))
    rates = (by_byte[:_BYTE_RATES] / max(len(words.raw), 1), found[len(by_byte) :] / max(len(words.hashes), 1))
    named, length, square = by_shape[_SHAPE_COUNTS:].tolist()
    rest = (
        *_shape(words, named, length, square, float(by_byte[_STOP])),
        *_moments(named, *by_rarity[_RARITY_COUNTS:].tolist()),
        _greatest(rarity) / RARITY_UNIT,
        *_numbers(words, shapes[DIGITS << 5 : SIGN << 5], float(by_byte[_DIGIT])),
        *_lines(words.text),
        *(log1p(words.lower.count(phrase)) for phrase in _PHRASES),
    )
    return np.concatenate((np.log1p(found), *rates, rest), dtype=np.float32)


def _shape(words: Words, named: float, length: float, square: float, stops: float) -> tuple[float, ...]:
    size, count = len(words.raw), len(words.hashes)
    different = distinct(words.hashes) / max(count, 1)
    return (
        *(log1p(size), log1p(count), size / max(count, 1), *_moments(named, length, square)),
        *(log1p(named / (stops + 1)), different, log1p(stops)),
    )


def _numbers(words: Words, shapes: Indices, digits: float) -> tuple[float, ...]:
    """`shapes` says how many there are of each shape."""
    longest = _greatest(shapes) >> 1
    if not longest:
        return 0.0, 0.0, 0.0, 0.0
    hashes = words.hashes[words.kind == _DIGITS]
    return log1p(len(hashes)), log1p(distinct(hashes)), float(longest), digits / (len(hashes) + 1)


def _greatest(counts: Indices) -> int:
    """The greatest value that was counted; 0 of nothing."""
    values = counts.nonzero()[0]
    return int(values[-1]) if len(values) else 0


def _lines(text: str) -> tuple[float, ...]:
    if "\n" not in text:
        return 0.0, log1p(len(text)), 0.0, 0.0
    lengths = list(map(len, text.split("\n")))
    inner = lengths[1:-1] or [0]
    mean, spread = _moments(len(inner), sum(inner), sum(map(mul, inner, inner)))
    return log1p(len(_OPTION.findall(text))), log1p(max(lengths)), log1p(mean), log1p(spread)


def _moments(count: float, total: float, squares: float) -> tuple[float, float]:
    """Mean and standard deviation from sums; 0 and 0 of nothing."""
    if not count:
        return 0.0, 0.0
    mean = total / count
    return mean, sqrt(max(squares / count - mean * mean, 0.0))
