"""Models of the fastembed package (ONNX, no torch), an optional extra. It downloads its model at first use."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from services.cache.embedders.base import EmbeddingError, Vectors, normalised


class FastembedEmbedder:
    """Loads when constructed, which blocks, for long where the model must be fetched. Raises EmbeddingError."""

    floor = 0.6
    # About 500 tokens, which is what these models read.
    max_characters = 2000
    # A forward pass takes milliseconds: it runs in a thread, on several texts at once.
    is_remote = True

    def __init__(self, model: str) -> None:
        try:
            from fastembed import TextEmbedding

            self._model: Any = TextEmbedding(model)
            [sample] = self._model.embed(["joule"])
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise EmbeddingError(f"fastembed cannot load {model!r}: {error!r}") from error
        self.dimension = len(sample)
        self.fingerprint = f"fastembed-{model}-{self.dimension}"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fastembed")

    async def embed(self, texts: Sequence[str]) -> Vectors:
        def run() -> Vectors:
            return normalised(np.array(list(self._model.embed(list(texts))), dtype=np.float32))

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def close(self) -> None:
        self._thread.shutdown(wait=False)
