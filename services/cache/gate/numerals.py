"""Tells texts that are the same but for their numbers, without taking them apart: the commonest near miss of all.

Of such texts the rules always say that the numbers differ. They would need a fifth of a millisecond for it, this needs some microseconds.
"""

import re
from typing import NamedTuple

_DIGITS = re.compile(r"\d+")


class Numerals(NamedTuple):
    """A text without its digits, and its runs of digits, sorted: of two numbers either may come first in what means the same."""

    rest: str
    runs: tuple[str, ...]


def numerals(text: str) -> Numerals:
    """Without leading zeros: seven is 07 too."""
    return Numerals(_DIGITS.sub("0", text), tuple(sorted(run.lstrip("0") for run in _DIGITS.findall(text))))


def differ_in_numbers_only(asked: Numerals, kept: Numerals) -> bool:
    return asked.rest == kept.rest and asked.runs != kept.runs
