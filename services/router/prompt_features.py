"""What can be counted in a prompt and tells of its difficulty, whatever the prompt is about.

Two counts carry nearly all features: how often each byte occurs, and how often each kind of token does (a word that negates, a word of
arithmetic, a long one, a rare one ...). The o200k vocabulary is ordered by frequency, so that a token's number tells its rarity. Each count
is one operation over an array: nothing loops over tokens in Python.
"""

import re
from math import log1p, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]

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
}
# A token is rare, rarer, rarest from these numbers on.
RARE: Final = (10_000, 50_000, 100_000)
KINDS: Final = (*WORDS, "starts_word", "capitalised", "long", *(f"beyond_{bound}" for bound in RARE))

_WORD_SETS: Final = tuple(frozenset(words.split()) for words in WORDS.values())
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
_BYTE_CLASSES: Final = np.array([[byte in members for members in _BYTES.values()] for byte in range(256)], np.float32)
# Of the others, a share among all bytes says little.
_BYTE_RATES: Final = 4
_DIGIT: Final = np.array([byte in _BYTES["digit"] for byte in range(256)], np.int8)
_DIGITS: Final = list(_BYTES).index("digit")
_STOP: Final = list(_BYTES).index("stop")
_STARTS_WORD: Final = len(_BYTES) + KINDS.index("starts_word")

NAMES: Final = (
    *(f"{name}_count" for name in (*_BYTES, *KINDS)),
    *(f"{name}_rate" for name in (*list(_BYTES)[:_BYTE_RATES], *KINDS)),
    *("bytes", "tokens", "bytes_per_token", "bytes_per_word", "words_per_sentence", "rarity", "rarity_spread", "rarest", "distinct"),
    *("numbers", "length_of_number", "options", "longest_line", "length_of_line"),
)


def kinds_of(token: str, number: int) -> int:
    """The kinds of a token of the vocabulary, as bits in the order of KINDS."""
    word = token.strip()
    lower = word.lower()
    marks = [lower in words for words in _WORD_SETS]
    marks += [token[:1] == " " and word.isalpha(), word[:1].isupper(), word.isalpha() and len(word) > 7]
    marks += [number >= bound for bound in RARE]
    return sum(1 << bit for bit, mark in enumerate(marks) if mark)


def features(text: str, tokens: Tokens, kind_of_token: NDArray[np.uint8], kinds: Floats) -> Floats:
    """The features of a text in the order of NAMES; row `kind_of_token[t]` of `kinds` has a 1 for each of KINDS that token `t` is."""
    raw = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    size, count = max(len(raw), 1), max(len(tokens), 1)
    by_byte = np.bincount(raw, minlength=256) @ _BYTE_CLASSES
    by_kind = np.bincount(kind_of_token[tokens], minlength=len(kinds)) @ kinds
    found = np.concatenate((by_byte, by_kind))
    shape = _shape(text, raw, tokens, found)
    return np.concatenate((np.log1p(found), by_byte[:_BYTE_RATES] / size, by_kind / count, shape), dtype=np.float32)


def _shape(text: str, raw: NDArray[np.uint8], tokens: Tokens, found: Floats) -> list[float]:
    size, count = max(len(raw), 1), max(len(tokens), 1)
    words = float(found[_STARTS_WORD]) + 1
    rarity = np.log1p(tokens) if len(tokens) else np.zeros(1)
    mean = float(rarity.sum()) / count
    spread = sqrt(max(float(rarity @ rarity) / count - mean * mean, 0.0))
    # The last digits of numbers.
    numbers = int(np.count_nonzero(np.diff(_DIGIT[raw]) < 0))
    lines = [len(line) for line in text.split("\n")]
    inner = lines[1:-1] or [0]
    return [
        *(log1p(size), log1p(count), size / count, size / words, log1p(words / (float(found[_STOP]) + 1))),
        *(mean, spread, float(rarity.max()), len(set(tokens.tolist())) / count),
        *(log1p(numbers), float(found[_DIGITS]) / (numbers + 1), log1p(len(_OPTION.findall(text)))),
        *(log1p(max(lines)), log1p(sum(inner) / len(inner))),
    ]
