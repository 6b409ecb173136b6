"""From tokens to words in one form: contractions written out, one spelling, numbers as digits with their units, case where it matters."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from services.cache.gate.english_words import PLAIN_UNITS, UNITS
from services.cache.gate.grammar import Grammar
from services.cache.gate.scanning import REMEMBERED_WORDS, Kind, Token

# Stands in patterns for what no pattern may look into.
OPAQUE = "\ufffc"
_CURRENCIES = {"$": "dollar", "€": "euro", "£": "£", "¥": "¥", "₹": "₹"}
# Whose capitals make another measure.
_CASED_UNITS = frozenset(unit for unit in UNITS if len(unit) > 1 and UNITS.get(unit.lower(), UNITS[unit]) != UNITS[unit])
_ROMAN = {
    "II": "2",
    "III": "3",
    "IV": "4",
    "VI": "6",
    "VII": "7",
    "VIII": "8",
    "IX": "9",
    "XI": "11",
    "XII": "12",
    "XIII": "13",
    "XIV": "14",
    "XVI": "16",
}
_NUMBERED = frozenset(
    [
        "war",
        "type",
        "part",
        "chapter",
        "class",
        "phase",
        "stage",
        "level",
        "grade",
        "act",
        "vol",
        "volume",
        "title",
        "table",
        "figure",
        "section",
        "article",
        "round",
    ]
)


class Word(NamedTuple):
    """A word of the normalised text. `form` is compared; `raw` is as written, empty when it was only implied."""

    form: str
    raw: str
    kind: Kind


def is_styled(tokens: list[Token]) -> bool:
    """Whether case says nothing: all capitals, or a capital on each longer word."""
    found = [token.raw for token in tokens if token.kind is Kind.WORD and len(token.raw) > 2]
    if len(found) < 3:
        return False
    return all(word.isupper() for word in found) or all(word[0].isupper() for word in found)


def normalise(tokens: list[Token], grammar: Grammar) -> list[Word]:
    """The words that tokens stand for."""
    styled = is_styled(tokens)
    words: list[Word] = []
    is_first = True
    previous = ""
    for index, token in enumerate(tokens):
        kind = token.kind
        if kind is Kind.WORD:
            following = tokens[index + 1] if index + 1 < len(tokens) else None
            is_topic = is_first and following is not None and following.kind is Kind.COLON
            is_numbered = token.raw == "I" and previous.lower() in _NUMBERED
            words.extend(_word(token, grammar, styled, is_first and not is_topic, is_numbered))
            is_first = False
        elif kind is Kind.NUMBER:
            words.extend(_number(token, grammar))
            is_first = False
        else:
            words.append(Word(OPAQUE if kind is Kind.LITERAL else token.form, token.raw, kind))
            is_first = kind is Kind.STOP or (is_first and kind is not Kind.LITERAL)
        previous = token.raw
    return _joined(words, grammar)


@lru_cache(REMEMBERED_WORDS)
def _word(token: Token, grammar: Grammar, styled: bool, is_first: bool, is_numbered: bool) -> Sequence[Word]:
    form, raw = token.form, token.raw
    if form != raw and not styled:
        if raw in _CASED_UNITS:
            return [Word(raw, raw, Kind.WORD)]
        if raw in _ROMAN or is_numbered:
            return [Word(_ROMAN.get(raw, "1"), raw, Kind.NUMBER)]
        if len(raw) == 1 and not is_first and raw != "I":
            return [Word(raw, raw, Kind.WORD)]
        if (
            (raw in grammar.words and (raw.isupper() or not is_first))
            or (len(raw) > 1 and raw.isupper() and (form in grammar.capitonyms or form in grammar.verbs))
            or (not is_first and form in grammar.capitonyms)
        ):
            form = raw
    meaning = grammar.words.get(form)
    if meaning is not None:
        return [_plain(part, raw if not number else "") for number, part in enumerate(meaning.split(" "))]
    if form is not raw and form == raw and not form.islower():
        return [Word(form, raw, Kind.WORD)]
    parts = [other for part in grammar.expand(form) for other in grammar.words.get(part, part).split(" ")]
    return [Word(grammar.normal(part), raw if not number else "", Kind.WORD) for number, part in enumerate(parts) if part]


def _plain(form: str, raw: str) -> Word:
    return Word(form, raw, Kind.NUMBER if form.isdigit() else Kind.WORD)


def _number(token: Token, grammar: Grammar) -> list[Word]:
    """A number with what was written on to it: a currency, a unit, an ordinal's ending."""
    raw = token.raw
    meaning = grammar.words.get(raw.lower())
    if meaning is not None:
        return [_plain(part, raw) for part in meaning.split(" ")]
    lead = _CURRENCIES.get(raw[0])
    body = raw[1:] if lead else raw
    body = body.replace(" ", "")
    digits = body.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz%°‰")
    suffix = body[len(digits) :]
    if not digits or not (digits[0].isdigit() or digits[0] in ".-"):
        return [Word(raw, raw, Kind.NUMBER)]
    if "," in digits and _is_grouped(digits):
        digits = digits.replace(",", "")
    words = [Word(digits, raw, Kind.NUMBER)]
    if suffix:
        lower = suffix.lower()
        if lower in ("st", "nd", "rd", "th"):
            words = [Word(digits + "th", raw, Kind.NUMBER)]
        elif lower in ("am", "pm"):
            words = [Word(digits.removesuffix(":00") + lower, raw, Kind.NUMBER)]
        elif suffix == "%":
            words = [Word(digits + "%", raw, Kind.NUMBER)]
        elif suffix in UNITS and len(digits) < 12:
            words.append(Word(UNITS[suffix], "", Kind.WORD))
        else:
            words = [Word(digits + suffix, raw, Kind.NUMBER)]
    if lead:
        words.append(Word(lead, "", Kind.WORD))
    return words


def _is_grouped(digits: str) -> bool:
    head, *rest = digits.partition(".")[0].lstrip("-").split(",")
    return 0 < len(head) <= 3 and head != "0" and all(len(part) == 3 for part in rest)


def _joined(words: list[Word], grammar: Grammar) -> list[Word]:
    """Number words as digits, `percent`, `pm` and units joined to their numbers."""
    numbers, ordinals = grammar.numbers, grammar.ordinals
    if not any(word.kind is Kind.NUMBER or word.form in numbers or word.form in ordinals or word.form in PLAIN_UNITS for word in words):
        return words
    joined: list[Word] = []
    for word in words:
        form = word.form
        before = joined[-1] if joined else None
        if word.kind is not Kind.WORD or (
            form in ("one", "ein", "eine", "un", "une", "uno", "una", "um", "uma", "een") and not _is_counted(before)
        ):
            joined.append(word)
        elif (
            before is not None
            and before.kind is Kind.NUMBER
            and form in ("percent", "prozent", "pourcent", "procent")
            and before.form[-1].isdigit()
        ):
            joined[-1] = Word(before.form + "%", before.raw, Kind.NUMBER)
        elif before is not None and before.kind is Kind.NUMBER and form in ("am", "pm") and before.form[-1].isdigit():
            joined[-1] = Word(before.form.removesuffix(":00") + form, before.raw, Kind.NUMBER)
        elif before is not None and before.kind is Kind.NUMBER and word.raw in UNITS and before.form[-1].isdigit():
            joined.append(Word(UNITS[word.raw], word.raw, Kind.WORD))
        elif form in numbers:
            _count(joined, numbers[form], word)
        elif form in ordinals:
            joined.append(Word(f"{ordinals[form]}th", word.raw, Kind.NUMBER))
        elif form in PLAIN_UNITS:
            joined.append(Word(PLAIN_UNITS[form], word.raw, Kind.WORD))
        else:
            joined.append(word)
    return joined


def _is_counted(before: Word | None) -> bool:
    """Whether `one` is a number here: "in one sentence", but not "which one", "a new one"."""
    return before is not None and before.form in (
        "in",
        "with",
        "only",
        "just",
        "exactly",
        "at-least",
        "least",
        "most",
        "than",
        "for",
        "by",
        "of",
    )


def _count(joined: list[Word], value: int, word: Word) -> None:
    """Adds a number word, or makes it part of the number before it: twenty five, two hundred, 3 million."""
    before = joined[-1] if joined else None
    if before is not None and before.kind is Kind.NUMBER and before.form.isdigit() and len(before.form) < 12:
        standing = int(before.form)
        is_word = not before.raw[:1].isdigit()
        if value >= 100 and standing < value:
            joined[-1] = Word(str(standing * value), before.raw, Kind.NUMBER)
            return
        if is_word and standing % 100 >= 20 and standing % 10 == 0 and value < 10:
            joined[-1] = Word(str(standing + value), before.raw, Kind.NUMBER)
            return
        if is_word and standing >= 100 and standing % 100 == 0 and value < 100:
            joined[-1] = Word(str(standing + value), before.raw, Kind.NUMBER)
            return
    joined.append(Word(str(value), word.raw, Kind.NUMBER))
