"""The default embedder: the mean of static token vectors (wordllama's l2_supercat, 256 dimensions), offline and in 0.1 ms.

Its files are read as they lie in the wheel. The package is not imported: its `load` looks for the tokenizer in a folder that the wheel
does not have and then goes to the internet, and takes three times the memory. A mean is blind to the order of words.
"""

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.cache.embedders.base import EmbeddingError, Vectors

_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
_TENSOR = "embedding.weight"
# Words whose sums are remembered, a kilobyte each: most of a text are common ones.
_WORDS = 4096
_LONGEST_WORD = 32


class WordllamaEmbedder:
    """Loads when constructed, which blocks for 0.2 s. Raises EmbeddingError when the files are not there or not what they should be."""

    floor = 0.6
    # About 1000 tokens, and two milliseconds.
    max_characters = 4000
    is_remote = False

    def __init__(self) -> None:
        try:
            folder = _folder()
            self._weights = _tensor(folder / _WEIGHTS)
            self._tokenizer = _tokenizer(folder / _TOKENIZER)
            self._remembered = lru_cache(_WORDS)(self._sum)
            self.fingerprint = f"wordllama-{version('wordllama')}-l2_supercat-{self.dimension}-mean"
        except (ImportError, OSError, ValueError, KeyError) as error:
            raise EmbeddingError(f"wordllama cannot be loaded: {error!r}") from error

    @property
    def dimension(self) -> int:
        return int(self._weights.shape[1])

    async def embed(self, texts: Sequence[str]) -> Vectors:
        found = np.empty((len(texts), self.dimension), np.float32)
        for row, text in zip(found, texts, strict=True):
            # Their mean, but for its length, which is of no account.
            np.add.reduce(self._sums(text), axis=0, out=row)
            length = math.sqrt(np.dot(row, row))
            if length > 0:
                row /= length
        return found

    async def close(self) -> None:
        """Holds nothing."""

    def _sums(self, text: str) -> list[Vectors]:
        """The sums of a text's token vectors, by words: no token reaches over a space, but for one of nothing else."""
        words = text.split(" ")
        if "" in words:
            return [self._sum(text)]
        return [self._remembered(word) if len(word) <= _LONGEST_WORD else self._sum(word) for word in words]

    def _sum(self, text: str) -> Vectors:
        # One by one: a batch would go to other threads, which takes longer than the work.
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        found: Vectors = np.add.reduce(self._weights.take(ids, axis=0), axis=0, dtype=np.float32)
        return found


def _folder() -> Path:
    spec = find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("wordllama is not installed")
    return Path(spec.submodule_search_locations[0])


def _tokenizer(path: Path) -> Any:
    # Imported here: whoever uses another embedder need not pay for it.
    from tokenizers import Tokenizer

    # Its own error says nothing of what is missing.
    path.stat()
    # By its path: handing over the text takes 12 MB more.
    return Tokenizer.from_file(str(path))


def _tensor(path: Path) -> NDArray[np.float16]:
    """The token vectors, mapped: of 16 MB only the tokens that occur take memory."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(header_bytes))[_TENSOR]
    if entry["dtype"] != "F16":
        raise ValueError(f"half-precision weights are expected, not {entry['dtype']}")
    start = 8 + header_bytes + entry["data_offsets"][0]
    # As a plain array: a memmap's own methods are slow.
    return np.asarray(np.memmap(path, dtype=np.float16, mode="r", offset=start, shape=tuple(entry["shape"])))
