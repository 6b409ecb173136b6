"""An embedder for tests: each word has a fixed pseudo-random direction, a text the sum of its words'. Sharing words is being similar."""

import hashlib
from collections.abc import Sequence

import numpy as np

from services.cache.embedders.base import Vectors, normalised

_DIMENSION = 64


class HashEmbedder:
    """Deterministic everywhere; needs no files."""

    fingerprint = f"hash-{_DIMENSION}"
    dimension = _DIMENSION
    floor = 0.5
    max_characters = 2000
    is_remote = False

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return normalised(
            np.stack([sum((_direction(word) for word in text.lower().split()), np.zeros(_DIMENSION, np.float32)) for text in texts])
        )

    async def close(self) -> None:
        """Holds nothing."""


def _direction(word: str) -> Vectors:
    digest = hashlib.blake2b(word.encode(), digest_size=_DIMENSION).digest()
    return (np.frombuffer(digest, np.uint8).astype(np.float32) - 127.5) / 127.5
