"""The vectors that lookups search, in memory: for each scope a slab of blocks, which grow by rows and never move; beside them the texts
that have none yet (unembedded.py).

Pure. A scope seldom holds more than a few thousand questions, and comparing those is exact and faster than any index over all scopes would
be; leaving takes one move of the last row. Larger slabs carry sketches (nearest.py).
"""

from collections.abc import Iterator

import numpy as np

from services.cache.embedders.base import Vectors
from services.cache.nearest import BASIS_VECTORS, BLOCK_NUMBERS, SKETCH_NUMBERS, Block, Rows, Search, basis_of
from services.cache.template import Filling, Fillings
from services.cache.unembedded import Unembedded

# A vector that costs less to compare than to sketch.
_LEAST_SKETCHED_DIMENSION = 2 * SKETCH_NUMBERS
# Numbers in a slab whose search may take longer than others should wait: about two milliseconds, should sketches not help.
LONG = 1 << 22
# Of fewer questions the gate itself says, and counts, that only numbers differ.
_LEAST_TEMPLATED = 64
# Comparing a few vectors costs less than looking which of so many times as many are near.
_FEW = 16
NO_ROWS = np.empty(0, np.intp)


class Slab:
    """The vectors of one scope."""

    __slots__ = ("_block_rows", "_blocks", "_dimension", "_fillings", "_ids", "_rows", "_unembedded")

    def __init__(self) -> None:
        # Those of the first vector.
        self._dimension = self._block_rows = 0
        self._blocks: list[Block] = []
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}
        self._fillings = Fillings()
        self._unembedded = Unembedded()

    def __len__(self) -> int:
        return len(self._ids) + len(self._unembedded)

    @property
    def size_bytes(self) -> int:
        return sum(block.size_bytes for block in self._blocks)

    @property
    def is_long(self) -> bool:
        """Whether a search may take so long that it should not hold anybody up."""
        return len(self._ids) * self._dimension >= LONG

    def put(self, entry_id: str, vector: Vectors | None, own: Filling) -> None:
        """Adds an entry that is not there; None: it has no vector yet."""
        if vector is None:
            self._unembedded.put(entry_id, own, is_among_few=len(self) < _LEAST_TEMPLATED)
            return
        if not self._ids:
            self._dimension, self._block_rows = len(vector), max(1, BLOCK_NUMBERS // len(vector))
        row = self._rows[entry_id] = len(self._ids)
        self._make_room(row)
        self._ids.append(entry_id)
        self._block(row).put(row % self._block_rows, vector)
        self._fillings.append(own)

    def embed(self, entry_id: str, vector: Vectors) -> bool:
        """Gives an entry its vector. False where it is not there, or has one."""
        own = self._unembedded.pop(entry_id)
        if own is not None:
            self.put(entry_id, vector, own)
        return own is not None

    def remove(self, entry_id: str) -> None:
        if self._unembedded.pop(entry_id) is not None:
            return
        row, last = self._rows.pop(entry_id), self._ids.pop()
        last_row = len(self._ids)
        if last != entry_id:
            self._ids[row] = last
            self._rows[last] = row
            self._block(row).put(row % self._block_rows, self._vector(last_row))
        self._fillings.remove(row)
        if last_row % self._block_rows == 0:
            self._blocks.pop()
        elif 4 * last_row < len(self._blocks[0].vectors):
            self._resize_first(2 * last_row)

    def search(self, vector: Vectors, floor: float, most: int) -> Search:
        """For the `most` nearest entries with a cosine of at least `floor`."""
        return Search(tuple(self._blocks), len(self._ids), vector, floor, most)

    def is_beside_none(self, asked: Filling | None) -> bool:
        """Whether there is nothing that a text need be compared with."""
        rows = self.rows_beside(asked)
        return rows is not None and not len(rows) and not self._unembedded.beside(asked)

    def unembedded_beside(self, asked: Filling | None) -> list[str]:
        """The entries that must have their vectors before a search for a text."""
        return self._unembedded.beside(asked)

    def rows_beside(self, asked: Filling | None) -> Rows | None:
        """The only rows that need be compared, where a text and most of those kept are one template; None: all."""
        size = len(self._ids)
        if not size:
            return NO_ROWS
        if asked is None or not asked.has_numbers or size < _LEAST_TEMPLATED:
            return None
        count = self._fillings.count_beside(asked)
        if not count:
            return NO_ROWS
        return self._fillings.rows_beside(asked) if _FEW * count <= size else None

    def named(self, search: Search, rows: Rows | None = None) -> Iterator[tuple[str, float]]:
        """What a search finds, nearest first; in certain rows, where they are given."""
        found, cosines = search.run() if rows is None else search.run_among(np.sort(rows[rows < len(self._ids)]))
        for row, cosine in zip(found.tolist(), cosines.tolist(), strict=True):
            yield self._ids[row], min(1.0, cosine)

    def _make_room(self, row: int) -> None:
        """Sees that there is a row of that number, the next one."""
        if row < self._block_rows:
            held = len(self._blocks[0].vectors) if self._blocks else 0
            if row == held:
                # Most scopes are conversations, which hold one question.
                self._resize_first(max(1, 2 * row))
        elif row % self._block_rows == 0:
            basis = self._new_basis()
            if basis is not None and self._blocks[0].basis is None:
                self._blocks[0] = self._blocks[0].sketched(basis)
            sketches = None if basis is None else np.empty((self._block_rows, basis.shape[1] + 1), np.float32)
            self._blocks.append(Block(np.empty((self._block_rows, self._dimension), np.float32), basis, sketches))

    def _new_basis(self) -> Vectors | None:
        """The basis of a new block: that of the one before, but for when the slab has grown fourfold since one was made.

        Each costs a search another sketch.
        """
        count = len(self._blocks)
        if self._dimension < _LEAST_SKETCHED_DIMENSION:
            return None
        if count & (count - 1) or count.bit_length() % 2 == 0:
            return self._blocks[-1].basis
        rows = np.linspace(0, len(self._ids) - 1, BASIS_VECTORS).astype(np.intp).tolist()
        return basis_of(np.array([self._vector(row) for row in rows]))

    def _resize_first(self, capacity: int) -> None:
        vectors = np.empty((min(capacity, self._block_rows), self._dimension), np.float32)
        if self._blocks:
            vectors[: len(self._ids)] = self._blocks[0].vectors[: len(self._ids)]
        # A new block: a search may be reading the old one.
        self._blocks[:1] = [Block(vectors)]

    def _block(self, row: int) -> Block:
        return self._blocks[row // self._block_rows]

    def _vector(self, row: int) -> Vectors:
        vector: Vectors = self._block(row).vectors[row % self._block_rows]
        return vector


class Slabs:
    """The slabs of all scopes."""

    def __init__(self) -> None:
        self._slabs: dict[str, Slab] = {}
        self._count = 0

    def __len__(self) -> int:
        """Entries in all scopes."""
        return self._count

    def put(self, scope: str, entry_id: str, vector: Vectors | None, own: Filling) -> None:
        """Adds an entry that is not yet there; None: it has no vector yet."""
        slab = self._slabs.get(scope)
        if slab is None:
            slab = self._slabs[scope] = Slab()
        slab.put(entry_id, vector, own)
        self._count += 1

    def remove(self, scope: str, entry_id: str) -> None:
        slab = self._slabs[scope]
        slab.remove(entry_id)
        self._count -= 1
        if not len(slab):
            del self._slabs[scope]

    def get(self, scope: str) -> Slab | None:
        """The slab of a scope; whoever searches it changes nothing until it has what it wants."""
        return self._slabs.get(scope)
