"""An embedder behind OpenAI's `/embeddings`: Ollama, TEI, vLLM, llama.cpp, or a hosted one."""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec
import numpy as np

from services.cache.embedders.base import EmbeddingError, Vectors, normalised

_MAX_ANSWER_BYTES = 64 * 1024 * 1024


class EndpointEmbedder:
    """One model of one endpoint. `dimension` is what its vectors have; it is checked, not asked for."""

    floor = 0.6
    max_characters = 8000
    is_remote = True

    def __init__(self, base_url: str, model: str, dimension: int, api_key: str | None) -> None:
        self._url = f"{base_url}/embeddings"
        self._model = model
        self.dimension = dimension
        place = hashlib.blake2b(base_url.encode(), digest_size=4).hexdigest()
        self.fingerprint = f"openai-{place}-{model}-{dimension}"
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._headers = {"content-type": "application/json", **headers}
        self._session: aiohttp.ClientSession | None = None

    async def embed(self, texts: Sequence[str]) -> Vectors:
        body = msgspec.json.encode({"model": self._model, "input": list(texts), "encoding_format": "float"})
        try:
            async with self._connected().post(self._url, data=body, headers=self._headers, allow_redirects=False) as response:
                if response.status != 200:
                    raise EmbeddingError(f"the embeddings endpoint answered {response.status}")
                answer = await response.content.read(_MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            raise EmbeddingError(f"the embeddings endpoint cannot be reached: {type(error).__name__}") from error
        return self._vectors(answer, len(texts))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            # TLS connections take a turn of the loop to end.
            await asyncio.sleep(0)

    def _connected(self) -> aiohttp.ClientSession:
        # Made at first use: a session belongs to a running loop.
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        return self._session

    def _vectors(self, answer: bytes, count: int) -> Vectors:
        try:
            document: Any = msgspec.json.decode(answer)
            rows = [row["embedding"] for row in sorted(document["data"], key=lambda row: row["index"])]
            vectors = np.array(rows, dtype=np.float32)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise EmbeddingError("the embeddings endpoint's answer is not in OpenAI's shape") from error
        if vectors.shape != (count, self.dimension):
            raise EmbeddingError(
                f"the embeddings endpoint gave {vectors.shape}, not {(count, self.dimension)}: see CACHE_EMBEDDINGS_DIMENSIONS"
            )
        return normalised(vectors)
