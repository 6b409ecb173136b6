"""The vectors nearest to one, exactly, without looking at all of each.

Vectors lie in blocks. A block may carry sketches: a vector's coordinates along a few directions in which vectors differ most, and how long
the rest of it is. By the inequality of Cauchy and Schwarz the cosine of two vectors is at most the inner product of their sketches, which
costs a fifth. So sketches say which vectors cannot be among the nearest, and only the others are compared: the result is that of comparing
all. Where vectors differ in too many directions the bound says little, and all are compared after all.
Pure; reads arrays only, so it may run in any thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.cache.embedders.base import Vectors

Rows = NDArray[np.intp]
# Rows with their cosines.
Found = tuple[Rows, Vectors]

# Numbers in a block: the linear algebra compares it in one thread, and so at once. Of more it would wake others and wait for them.
BLOCK_NUMBERS = 1 << 18
# The directions that a sketch holds, and the length of the rest.
SKETCH_NUMBERS = 48
# A sum of so many products may be off by this.
_ROUNDING = 1e-5
# How many vectors a basis is made from, and how often it is turned towards them: few of either do.
BASIS_VECTORS = 256
_BASIS_TURNS = 3
# How many more of the highest bounds than are wanted are compared first: the others are then seldom worth it.
_HEAD_START = 2
# Fewer rows than this are picked one by one: going through the blocks would take longer.
_FEW = 24
# Of so many scores for each wanted the best are first sought by the best of each group.
_GROUP = 64


@dataclass(slots=True)
class Block:
    """Vectors in rows, all of which have room; with `basis`, their sketches."""

    vectors: Vectors
    basis: Vectors | None = None
    sketches: Vectors | None = None

    def put(self, row: int, vector: Vectors) -> None:
        self.vectors[row] = vector
        if self.basis is not None and self.sketches is not None:
            self.sketches[row] = sketch(vector, self.basis)

    def sketched(self, basis: Vectors) -> "Block":
        """The same vectors, all of which are there, with sketches."""
        along = self.vectors @ basis
        rest = np.vecdot(self.vectors, self.vectors) - np.vecdot(along, along)
        return Block(self.vectors, basis, np.column_stack([along, np.sqrt(np.maximum(0, rest))]))

    @property
    def size_bytes(self) -> int:
        return self.vectors.nbytes + (0 if self.sketches is None else self.sketches.nbytes)


@dataclass(frozen=True, slots=True)
class Search:
    """The `most` vectors nearest to one among the first `size` of some blocks, all but the last of which are full; none below `floor`."""

    blocks: Sequence[Block]
    size: int
    vector: Vectors
    floor: float
    most: int

    def run(self) -> Found:
        """Their rows and cosines, nearest first."""
        if not self.size:
            return np.empty(0, np.intp), np.empty(0, np.float32)
        scores, are_bounds = self._scores()
        if not are_bounds:
            rows = _best(scores, self.floor, self.most)
            return _ordered(rows, scores[rows], self.floor, self.most)
        rows = _best(scores, self.floor, _HEAD_START * self.most)
        cosines = self._cosines(rows)
        least = np.partition(cosines, -self.most)[-self.most] if len(rows) >= self.most else self.floor
        # What was not compared is below them, unless its bound says otherwise.
        may_be_among = scores >= max(self.floor, float(least)) - _ROUNDING
        may_be_among[rows] = False
        others = np.flatnonzero(may_be_among)
        if len(others):
            rows, cosines = np.concatenate([rows, others]), np.concatenate([cosines, self._cosines(others)])
        return _ordered(rows, cosines, self.floor, self.most)

    def run_among(self, rows: Rows) -> Found:
        """The same among some rows, which are in order."""
        if not len(rows):
            return rows, np.empty(0, np.float32)
        return _ordered(rows, self._cosines(rows), self.floor, self.most)

    def _scores(self) -> tuple[Vectors, bool]:
        """For each row its cosine, or an upper bound of it; whether any is such a bound."""
        scores = np.empty(self.size, np.float32)
        projected: dict[int, Vectors] = {}
        start = 0
        for block in self.blocks:
            count = min(len(block.vectors), self.size - start)
            if block.basis is None or block.sketches is None:
                rows, other = block.vectors, self.vector
            else:
                own = projected.get(id(block.basis))
                rows, other = block.sketches, sketch(self.vector, block.basis) if own is None else own
                projected[id(block.basis)] = other
            np.dot(rows[:count], other, out=scores[start : start + count])
            start += count
        return scores, bool(projected)

    def _cosines(self, rows: Rows) -> Vectors:
        """The cosines of some rows, which are in order."""
        block_rows = len(self.blocks[0].vectors)
        if len(rows) <= _FEW:
            picked = [self.blocks[row // block_rows].vectors[row % block_rows] for row in rows.tolist()]
            found: Vectors = np.dot(np.array(picked), self.vector)
            return found
        cosines = np.empty(len(rows), np.float32)
        cuts = np.searchsorted(rows, np.arange(0, self.size + block_rows, block_rows))
        for number, block in enumerate(self.blocks):
            first, last = cuts[number], cuts[number + 1]
            if first == last:
                continue
            own = rows[first:last] - number * block_rows
            # Picking rows costs as much as comparing three.
            if 3 * len(own) > block_rows:
                np.take(np.dot(block.vectors, self.vector), own, out=cosines[first:last])
            else:
                np.dot(block.vectors.take(own, axis=0), self.vector, out=cosines[first:last])
        return cosines


def sketch(vector: Vectors, basis: Vectors) -> Vectors:
    """A vector's coordinates along a basis, and the length of the rest."""
    found = np.empty(basis.shape[1] + 1, np.float32)
    np.dot(vector, basis, out=found[:-1])
    rest = float(np.dot(vector, vector)) - float(np.dot(found[:-1], found[:-1]))
    found[-1] = np.sqrt(max(0.0, rest))
    return found


def basis_of(vectors: Vectors) -> Vectors:
    """Orthonormal directions, in columns, along which the vectors are longest, or nearly so: subspace iteration."""
    count = min(SKETCH_NUMBERS - 1, *vectors.shape)
    basis: Vectors = np.linalg.qr(vectors[np.linspace(0, len(vectors) - 1, count).astype(np.intp)].T)[0]
    for _ in range(_BASIS_TURNS):
        basis = np.linalg.qr(vectors.T @ (vectors @ basis))[0]
    return np.ascontiguousarray(basis, np.float32)


def _best(scores: Vectors, floor: float, most: int) -> Rows:
    """The rows of the `most` highest scores, or of a few more; none below `floor`. In order."""
    rows: Rows = np.flatnonzero(scores >= floor)
    if len(rows) <= most:
        return rows
    found = scores[rows]
    grouped = len(found) - len(found) % _GROUP
    if grouped >= most * _GROUP:
        # So many groups have a best one at least this good.
        least = np.partition(found[:grouped].reshape(-1, _GROUP).max(axis=1), -most)[-most]
        rows = rows[found >= least]
        found = scores[rows]
    if len(rows) > most:
        rows = np.sort(rows[np.argpartition(found, -most)[-most:]])
    return rows


def _ordered(rows: Rows, cosines: Vectors, floor: float, most: int) -> Found:
    order = np.argsort(-cosines, kind="stable")[:most]
    order = order[cosines[order] >= floor]
    return rows[order], cosines[order]
