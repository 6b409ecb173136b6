"""Asking anew, off the reply's path, what was just answered in other words: the cache compares, and learns whether its answer was right.

A share of semantic hits is verified. Each costs its caller a provider's call, within the same budgets and limits as any other, and is
booked under an id of its own. Few run at a time; what comes beyond that is not verified, for a sample is all that is needed.
"""

import asyncio
import dataclasses
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from services.router import metrics
from services.router.answer import Answer, Source
from services.router.question import Question, Ticket
from services.runtime.errors import GatewayError

MAX_AT_ONCE: Final = 4
ID_PREFIX: Final = "verify-"


class Verifier:
    """`ask` answers a question at the providers; `draw` gives random numbers in [0, 1)."""

    def __init__(self, share: float, draw: Callable[[], float], ask: Callable[[Question], AbstractAsyncContextManager[Answer]]) -> None:
        self._share = share
        self._draw = draw
        self._ask = ask
        self._running: set[asyncio.Task[None]] = set()

    def served(self, question: Question, source: Source) -> None:
        """Notes an answer that was served for other words, and perhaps has it verified."""
        if question.controls.only_if_cached:
            # Who asks for what is cached wants no provider called.
            return
        if self._share and len(self._running) < MAX_AT_ONCE and self._draw() < self._share:
            task = asyncio.create_task(self._verify(anew(question, source)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Ends what is under way."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _verify(self, question: Question) -> None:
        try:
            async with asyncio.timeout(question.timeout_s), self._ask(question) as answer:
                async for _ in answer.batches():
                    pass
                await answer.receipt()
        except (GatewayError, TimeoutError):
            # Nobody waits for it; the call that failed is in the books, and why in dispatch's log.
            metrics.VERIFICATIONS.labels("failed").inc()
        else:
            metrics.VERIFICATIONS.labels("answered").inc()


def anew(question: Question, source: Source) -> Question:
    """The question for a provider, whatever the cache has, with the answer that it is to be compared with."""
    served = cache_pb.Neighbour(entry_id=source.entry_id, similarity=source.similarity or 0.0, served=True)
    return dataclasses.replace(
        question,
        request_id=f"{ID_PREFIX}{uuid.uuid4()}",
        controls=dataclasses.replace(question.controls, may_read=False),
        neighbours=(served,),
        wishes=dataclasses.replace(question.wishes, hedges=False),
        ticket=Ticket(),
    )
