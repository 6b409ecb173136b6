"""Tells texts that are the same but for their numbers, without taking them apart: the commonest near miss of all.

Of such texts the rules always say that the numbers differ. They would need a fifth of a millisecond for it, this needs some microseconds.
"""

import re
from typing import NamedTuple

_DIGITS = re.compile(r"(\d+)")


class Numerals(NamedTuple):
    """What stands between a text's runs of digits, and these, sorted: of two numbers either may come first in what means the same."""

    rest: list[str]
    runs: list[str]


def numerals(text: str) -> Numerals:
    """Without leading zeros: seven is 07 too."""
    parts = _DIGITS.split(text)
    return Numerals(parts[::2], sorted([run.lstrip("0") for run in parts[1::2]]))


def differ_in_numbers_only(asked: Numerals, kept: Numerals) -> bool:
    return asked.rest == kept.rest and asked.runs != kept.runs
