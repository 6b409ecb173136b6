"""A fake of OpenAI's `/embeddings`: the hash embedder's vectors over real HTTP, last text first."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from services.cache.embedders.hashing import HashEmbedder


class EmbeddingsEndpoint:
    """Listens on loopback while entered. `instead` answers when set; `gate` can be closed to hold answers back."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.authorization: str | None = None
        self.instead: Callable[[], web.Response] | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.base_url = ""
        self.dimension = HashEmbedder.dimension

    async def __aenter__(self) -> "EmbeddingsEndpoint":
        application = web.Application()
        application.router.add_post("/v1/embeddings", self._answer)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.calls.append(await request.json())
        self.authorization = request.headers.get("authorization")
        await self.gate.wait()
        if self.instead is not None:
            return self.instead()
        vectors = await HashEmbedder().embed(self.calls[-1]["input"])
        # Not of length 1, and not in order: both are the client's affair.
        data = [{"object": "embedding", "index": index, "embedding": (3 * vector).tolist()} for index, vector in enumerate(vectors)]
        return web.json_response({"object": "list", "model": "mini", "data": data[::-1]})
