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
    has_numbers: bool


# A miss is looked up, and kept when its answer is there.
@lru_cache(maxsize=256)
def filling(text: str) -> Filling:
    found = numerals(text)
    rest, runs = tuple(found.rest), tuple(found.runs)
    return Filling(hash(rest), hash((rest, runs)), bool(runs))


class Fillings:
    """The fillings of a slab's rows, 16 bytes each."""

    __slots__ = ("_hashes",)

    def __init__(self) -> None:
        self._hashes = np.empty((2, 1), np.int64)

    def put(self, row: int, own: Filling) -> None:
        if row >= self._hashes.shape[1]:
            self._resize(2 * row)
        self._hashes[0, row] = own.template
        self._hashes[1, row] = own.whole

    def move(self, source: int, target: int) -> None:
        self._hashes[:, target] = self._hashes[:, source]

    def shrink(self, size: int) -> None:
        """Gives room back when only the first `size` rows are left of many more."""
        if 4 * size < self._hashes.shape[1]:
            self._resize(max(1, 2 * size))

    def rows_beside(self, asked: Filling, size: int) -> Rows:
        """Those of the first `size` rows that differ from a text in more than their numbers, or not in these. In order."""
        templates, wholes = self._hashes[:, :size]
        rows: Rows = np.flatnonzero((templates != asked.template) | (wholes == asked.whole))
        return rows

    def _resize(self, capacity: int) -> None:
        hashes = np.empty((2, capacity), np.int64)
        kept = min(capacity, self._hashes.shape[1])
        hashes[:, :kept] = self._hashes[:, :kept]
        self._hashes = hashes
