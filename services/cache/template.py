"""Texts that are one template filled with different numbers: none of them may be answered by another, and templated traffic has no others.

The gate refuses such a pair without taking it apart (gate/numerals.py). Where a scope holds thousands of them it need not even be asked:
two hashes for each kept text say which those are. That two texts share a hash by chance is a hit less, never a wrong one.
Pure.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.cache.gate import numerals

Rows = NDArray[np.intp]


class Filling(NamedTuple):
    """A text's template, and that with its numbers, as hashes."""

    template: int
    whole: int
    # All digits of its numbers in order, without zeros.
    digits: str
    has_numbers: bool

    def differs_in_numbers_only(self, other: "Filling") -> bool:
        return self.template == other.template and self.whole != other.whole


# A miss is looked up, and kept when its answer is there.
@lru_cache(maxsize=256)
def filling(text: str) -> Filling:
    found = numerals(text)
    rest, runs = tuple(found.rest), tuple(found.runs)
    digits = "".join(sorted("".join(runs))).lstrip("0")
    return Filling(hash(rest), hash((rest, runs)), digits, bool(runs))


class Fillings:
    """The fillings of a slab's rows: 16 bytes each, and how many there are of each that has numbers."""

    __slots__ = ("_counts", "_hashes", "_size")

    def __init__(self) -> None:
        self._hashes = np.empty((2, 1), np.int64)
        self._size = 0
        # By template, and by the whole. Of texts without numbers none is like another in this.
        self._counts: dict[int, int] = {}

    def append(self, own: Filling) -> None:
        """The filling of the next row."""
        row = self._size
        self._size += 1
        if row >= self._hashes.shape[1]:
            self._resize(2 * row)
        self._hashes[0, row] = own.template
        self._hashes[1, row] = own.whole
        if own.has_numbers:
            for each in (own.template, own.whole):
                self._counts[each] = self._counts.get(each, 0) + 1

    def remove(self, row: int) -> None:
        """Takes a row out. The last one takes its place."""
        for each in self._hashes[:, row].tolist():
            left = self._counts.pop(each, 0) - 1
            if left > 0:
                self._counts[each] = left
        self._size -= 1
        self._hashes[:, row] = self._hashes[:, self._size]
        # Gives room back when few are left of many.
        if 4 * self._size < self._hashes.shape[1]:
            self._resize(max(1, 2 * self._size))

    def count_beside(self, asked: Filling) -> int:
        """How many rows `rows_beside` has."""
        return self._size - self._counts.get(asked.template, 0) + self._counts.get(asked.whole, 0)

    def rows_beside(self, asked: Filling) -> Rows:
        """Those rows that differ from a text in more than their numbers, or not in these. In order."""
        templates, wholes = self._hashes[:, : self._size]
        rows: Rows = np.flatnonzero((templates != asked.template) | (wholes == asked.whole))
        return rows

    def _resize(self, capacity: int) -> None:
        hashes = np.empty((2, capacity), np.int64)
        kept = min(capacity, self._hashes.shape[1])
        hashes[:, :kept] = self._hashes[:, :kept]
        self._hashes = hashes
