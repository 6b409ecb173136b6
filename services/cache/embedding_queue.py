"""Words to vectors with a deadline: together where that pays, from memory where they were just asked for, and not at all while the embedder
is down. Who gets None goes on without the semantic tier."""

import asyncio
from collections import OrderedDict

from services.cache import metrics
from services.cache.counts import Counts
from services.cache.embedders.base import Embedder, EmbeddingError, Vectors
from services.runtime import logs
from services.runtime.clock import Clock

log = logs.get(__name__)

# A miss is looked up and, when its answer is there, stored: the same words twice, within what an answer takes.
REMEMBERED_BYTES = 8 << 20
MAX_BATCH = 64
# How long the first text of a batch waits for company.
WINDOW_S = 0.002
RETRY_S = (1.0, 30.0)


class EmbeddingQueue:
    """Gives vectors of one embedder. `deadline_s` bounds what a caller waits."""

    def __init__(self, embedder: Embedder, deadline_s: float, counts: Counts, clock: Clock) -> None:
        self._embedder = embedder
        self._deadline_s = deadline_s
        self._counts = counts
        self._clock = clock
        self._known: OrderedDict[str, Vectors] = OrderedDict()
        self._most_known = max(MAX_BATCH, REMEMBERED_BYTES // (4 * embedder.dimension))
        self._waiting: dict[str, asyncio.Future[Vectors]] = {}
        self._batches: set[asyncio.Task[None]] = set()
        self._retry_at = 0.0
        self._retry_s = RETRY_S[0]

    @property
    def is_at_once(self) -> bool:
        """Whether a vector is there as soon as it is asked for."""
        return not self._embedder.is_remote

    def takes(self, text: str) -> bool:
        """Whether a text may have a vector."""
        return len(text) <= self._embedder.max_characters

    def known(self, text: str) -> Vectors | None:
        """The text's vector, where it was asked for a moment ago."""
        known = self._known.get(text)
        if known is not None:
            self._known.move_to_end(text)
        return known

    async def vector(self, text: str) -> Vectors | None:
        """The text's vector; None when there is none to be had in time, which is counted."""
        known = self.known(text)
        if known is not None:
            return known
        if not self.takes(text):
            return None
        if self._clock.monotonic() < self._retry_at:
            self._counts.embedding_fault()
            return None
        started = self._clock.monotonic()
        try:
            vector = await asyncio.wait_for(self._joined(text), self._deadline_s) if self._embedder.is_remote else await self._alone(text)
        except (EmbeddingError, TimeoutError) as error:
            self._fail(error)
            return None
        metrics.EMBEDDING_SECONDS.observe(self._clock.monotonic() - started)
        return vector

    async def close(self) -> None:
        for batch in self._batches:
            batch.cancel()
        await asyncio.gather(*self._batches, return_exceptions=True)
        await self._embedder.close()

    async def _alone(self, text: str) -> Vectors:
        vector: Vectors = (await self._embedder.embed([text]))[0]
        self._remember(text, vector)
        return vector

    def _joined(self, text: str) -> "asyncio.Future[Vectors]":
        """The vector from the batch that is being gathered. A caller that gives up does not take it from the others."""
        waiting = self._waiting.get(text)
        if waiting is None:
            if not self._waiting:
                batch = asyncio.create_task(self._gather())
                self._batches.add(batch)
                batch.add_done_callback(self._batches.discard)
            waiting = self._waiting[text] = asyncio.get_running_loop().create_future()
        return asyncio.shield(waiting)

    async def _gather(self) -> None:
        await asyncio.sleep(WINDOW_S)
        waiting, self._waiting = self._waiting, {}
        texts = list(waiting)
        for start in range(0, len(texts), MAX_BATCH):
            part = texts[start : start + MAX_BATCH]
            try:
                vectors = await asyncio.wait_for(self._embedder.embed(part), self._deadline_s)
            except (EmbeddingError, TimeoutError) as error:
                for text in part:
                    _settle(waiting[text], error)
                continue
            self._retry_s = RETRY_S[0]
            for text, row in zip(part, vectors, strict=True):
                # A row of its own: to remember one must not keep them all.
                vector = row.copy()
                self._remember(text, vector)
                if not waiting[text].done():
                    waiting[text].set_result(vector)

    def _remember(self, text: str, vector: Vectors) -> None:
        self._known[text] = vector
        if len(self._known) > self._most_known:
            self._known.popitem(last=False)

    def _fail(self, error: Exception) -> None:
        """Counts; and leaves the embedder alone for a while, so that requests do not each wait for the deadline."""
        self._counts.embedding_fault()
        now = self._clock.monotonic()
        if now < self._retry_at:
            return
        self._retry_at = now + self._retry_s
        log.warning("embedding_failed", error=str(error) or type(error).__name__, retry_s=self._retry_s)
        self._retry_s = min(2 * self._retry_s, RETRY_S[1])


def _settle(future: "asyncio.Future[Vectors]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        # Nobody may be left to look at it.
        future.exception()
