"""Whether two answers say the same, as far as that can be told without a model.

Tool calls and JSON compare by value. Texts that are equal but for case, punctuation and white space agree; texts whose numbers differ, or
of which one denies and the other does not, disagree if they are otherwise about the same. Short texts with hardly a word in common
disagree. All else is unknown: two answers of a model that samples differ in wording, which is evidence of nothing.
"""

import re
import unicodedata
from collections import Counter
from enum import Enum
from typing import Any, Final

import msgspec

from joulegate.chat.v1 import chat_pb2

# Up to so many words an answer is short: it has little to say beyond what it was asked for.
SHORT_WORDS: Final = 12
# Of the words of both, so many in common are the same text in other words, and so few are another text.
ALIKE: Final = 0.8
UNLIKE: Final = 0.2
_WORD: Final = re.compile(r"\w+(?:[.,:]\d+)*")
_DENIALS: Final = frozenset(
    {
        *("no", "not", "never", "none", "nothing", "cannot", "without", "false", "incorrect"),
        *("nein", "nicht", "kein", "keine", "nie", "falsch"),
        *("non", "ne", "pas", "jamais", "rien", "sans", "nunca", "nada", "sin", "não", "sem", "nunca"),
    }
)


class Agreement(Enum):
    """What comparing two answers says."""

    SAME = "same"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


def compare(one: chat_pb2.ChatCompletion, other: chat_pb2.ChatCompletion) -> Agreement:
    """Compares the first choices. Several choices are a sample, of which the first is as good as any."""
    if not one.choices or not other.choices:
        return Agreement.UNKNOWN
    mine, theirs = one.choices[0].message, other.choices[0].message
    if mine.tool_calls or theirs.tool_calls:
        return _settled(_calls(mine) == _calls(theirs))
    return compare_texts(mine.text, theirs.text)


def compare_texts(one: str, other: str) -> Agreement:
    """Compares two texts."""
    mine, theirs = _json(one), _json(other)
    if mine is not None and theirs is not None:
        return _settled(mine == theirs)
    words, others = _words(one), _words(other)
    if words == others:
        return Agreement.SAME if words else _settled(one.strip() == other.strip())
    likeness = _likeness(words, others)
    if _numbers(words) != _numbers(others) or _denies(words) != _denies(others):
        about_the_same = likeness >= ALIKE or max(len(words), len(others)) <= SHORT_WORDS
        return Agreement.DIFFERENT if about_the_same else Agreement.UNKNOWN
    if likeness >= ALIKE:
        return Agreement.SAME
    is_short = max(len(words), len(others)) <= SHORT_WORDS
    return Agreement.DIFFERENT if is_short and likeness <= UNLIKE else Agreement.UNKNOWN


def _settled(are_equal: bool) -> Agreement:
    return Agreement.SAME if are_equal else Agreement.DIFFERENT


def _calls(message: chat_pb2.Message) -> list[tuple[str, Any]]:
    return sorted(
        ((call.function.name, _value(call.function.arguments)) for call in message.tool_calls),
        key=repr,
    )


def _value(text: str) -> Any:
    parsed = _json(text)
    return text.strip() if parsed is None else parsed


def _json(text: str) -> Any:
    """What an object or array in JSON says; None for any other text."""
    stripped = text.strip()
    if not stripped.startswith(("{", "[")):
        return None
    try:
        return msgspec.json.decode(stripped)
    except msgspec.DecodeError:
        return None


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold().replace("n't", " not"))


def _numbers(words: list[str]) -> Counter[str]:
    return Counter(word for word in words if any(character.isdigit() for character in word))


def _denies(words: list[str]) -> bool:
    return not _DENIALS.isdisjoint(words)


def _likeness(words: list[str], others: list[str]) -> float:
    """The share of the words of both that both have, by count."""
    mine, theirs = Counter(words), Counter(others)
    total = (mine | theirs).total()
    return (mine & theirs).total() / total if total else 1.0
