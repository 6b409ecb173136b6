"""One router's stream as the books see it: records that wait for their commit, and answers that wait to be sent."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from joulegate.ledger.v1 import ledger_service_pb2 as pb
from services.ledger.leases import LIFETIME_S
from services.runtime.waiting import is_done_within


class _End(NamedTuple):
    error: BaseException | None


class RouterStream:
    """The answers to one Book call, in order, up to its end."""

    def __init__(self, router_id: str) -> None:
        self.router_id = router_id
        self._answers: asyncio.Queue[pb.BookResponse | _End] = asyncio.Queue()
        self._unanswered = 0
        self._end: _End | None = None
        self._reading: asyncio.Task[None] | None = None
        # Until when the router may use a lease that it was given, in the loop's time.
        self._leased_until = 0.0
        # The newest revocation that the router heeds, and who waits for which.
        self._heeded = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def read_with(self, reading: asyncio.Task[None]) -> None:
        """Ties the stream to the task that takes its records: when that ends, so does the stream, once all it took is answered."""
        self._reading = reading
        reading.add_done_callback(self._reading_ended)

    def stop_reading(self) -> None:
        """Takes no more records; those it took are still answered."""
        if self._reading is not None:
            self._reading.cancel()

    def took(self) -> None:
        """Notes a message whose records will be answered."""
        self._unanswered += 1

    def answer(self, response: pb.BookResponse, messages: int) -> None:
        """Sends the acknowledgements of so many messages."""
        self._unanswered -= messages
        if any(grant.HasField("lease") for grant in response.grants):
            self._leased_until = asyncio.get_running_loop().time() + LIFETIME_S
        # Some records are not acknowledged.
        if response.ListFields():
            self._answers.put_nowait(response)
        self._end_if_answered()

    def tell(self, response: pb.BookResponse) -> None:
        """Sends what answers nothing."""
        self._answers.put_nowait(response)

    def heard(self, revocation: int) -> None:
        """Notes that the router lets nobody in under a lease of before that revocation."""
        self._heeded = max(self._heeded, revocation)
        waiting, self._waiting = self._waiting, []
        for wanted, future in waiting:
            if wanted > self._heeded:
                self._waiting.append((wanted, future))
            elif not future.done():
                future.set_result(None)

    async def heeds(self, revocation: int) -> None:
        """Waits until the router lets nobody in under a lease of before that revocation: it has said so, or they are over."""
        loop = asyncio.get_running_loop()
        left_s = self._leased_until - loop.time()
        if revocation > self._heeded and left_s > 0:
            future = loop.create_future()
            self._waiting.append((revocation, future))
            await is_done_within(future, left_s)

    def fail(self, error: Exception) -> None:
        """Ends the stream now; what is unanswered will be repeated on the router's next one."""
        self._answers.put_nowait(_End(error))
        self.stop_reading()

    def _reading_ended(self, reading: asyncio.Task[None]) -> None:
        self._end = _End(None if reading.cancelled() else reading.exception())
        self._end_if_answered()

    def _end_if_answered(self) -> None:
        if self._end is not None and self._unanswered == 0:
            self._answers.put_nowait(self._end)

    async def __aiter__(self) -> AsyncIterator[pb.BookResponse]:
        while True:
            answer = await self._answers.get()
            if not isinstance(answer, _End):
                yield answer
            elif answer.error is not None:
                raise answer.error
            else:
                return
