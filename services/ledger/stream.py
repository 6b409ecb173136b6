"""One router's stream as the books see it: records that wait for their commit, and answers that wait to be sent."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from joulegate.ledger.v1 import ledger_service_pb2 as pb


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
        # Some records are not acknowledged.
        if response.ListFields():
            self._answers.put_nowait(response)
        self._end_if_answered()

    def tell(self, response: pb.BookResponse) -> None:
        """Sends what answers nothing."""
        self._answers.put_nowait(response)

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
