"""What turns words into vectors, whichever model does it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class EmbeddingError(Exception):
    """No vectors came, or none that can be used. Its text may be logged: it says nothing of what was to be embedded."""


class Embedder(Protocol):
    """Makes vectors of one space."""

    @property
    def fingerprint(self) -> str:
        """Names the space: vectors under different fingerprints are never compared."""
        ...

    @property
    def dimension(self) -> int: ...

    @property
    def floor(self) -> float:
        """Cosine below which two texts of this space hardly ever mean the same."""
        ...

    @property
    def max_characters(self) -> int:
        """Longer texts are not embedded: cutting them would make different ones equal."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether embedding waits for somebody: then texts are better sent together."""
        ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row of length 1 for each text; zeros for a text without any words of the model. Raises EmbeddingError."""
        ...

    async def close(self) -> None: ...


def normalised(vectors: Vectors) -> Vectors:
    """The rows at length 1; rows without a direction become zeros, which are similar to nothing."""
    lengths = np.sqrt(np.vecdot(vectors, vectors))[:, None]
    directions: Vectors
    # Nearly always all of them have one.
    if np.all(lengths > 0) and np.all(lengths < np.inf):
        directions = vectors / lengths
        return directions
    directions = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=np.isfinite(lengths) & (lengths > 0))
    return directions
