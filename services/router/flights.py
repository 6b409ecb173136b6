"""Identical requests in flight, each of which is one call: who asks what is on its way already, listens (docs/adr/0016)."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.router import metrics
from services.router.answer import Answer
from services.router.books import Books
from services.router.flight import Flight
from services.router.question import Question
from services.router.reservations import Reservations
from services.router.shared_answer import SharedAnswer
from services.runtime import logs
from services.runtime.errors import GatewayError

log = logs.get(__name__)

# Makes the call that answers a question, in its name.
Ask = Callable[[Question], AbstractAsyncContextManager[Answer]]


class OpenFlight:
    """A flight with what keeps it going."""

    def __init__(self, flight_id: bytes, forget: Callable[["OpenFlight"], None]) -> None:
        self.flight_id = flight_id
        self.flight = Flight(self._abandon)
        self.receipt_wanted = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._forget = forget

    def _abandon(self, reason: GatewayError | None) -> None:
        # Whoever comes now starts afresh. The reason ends up in the books: a deadline is not a client that left.
        self._forget(self)
        if self.task is not None:
            self.task.cancel(reason)


class Flights:
    """The open flights of a router. `longest_s` bounds a call, whoever's it is."""

    def __init__(self, ask: Ask, books: Books, reservations: Reservations, longest_s: float) -> None:
        self._ask = ask
        self._books = books
        self._reservations = reservations
        self._longest_s = longest_s
        self._open: dict[bytes, OpenFlight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def is_open(self, flight_id: bytes) -> bool:
        return flight_id in self._open

    @asynccontextmanager
    async def share(self, flight_id: bytes, question: Question) -> AsyncIterator[Answer]:
        """The answer to a question, begun: that of the open flight, else of a new one. Raises GatewayError when none begins."""
        if flight_id in self._open:
            await self._reservations.count(question)
        flown = self._open.get(flight_id) or self._launch(flight_id)
        shared = SharedAnswer(flown.flight, question, self._books, flown.receipt_wanted.set)
        try:
            await shared.begun()
            yield shared
        except BaseException as error:
            shared.leave(error)
            raise
        shared.leave(None)

    def _launch(self, flight_id: bytes) -> OpenFlight:
        flown = self._open[flight_id] = OpenFlight(flight_id, self._forget)
        task = flown.task = asyncio.create_task(self._fly(flown))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._end(flown, task))
        metrics.FLIGHTS.inc()
        return flown

    async def _fly(self, flown: OpenFlight) -> None:
        while (question := flown.flight.appoint()) is not None:
            if not await self._lead(flown, question):
                return
            metrics.FLIGHT_PROMOTIONS.inc()

    async def _lead(self, flown: OpenFlight, question: Question) -> bool:
        """Makes the call in a listener's name. Says whether another one is to try."""
        flight = flown.flight
        try:
            with self._books.held(question.request_id):
                async with self._ask(dataclasses.replace(question, timeout_s=self._longest_s)) as answer:
                    flight.begin(answer)
                    async for events in answer.batches():
                        flight.add(events)
                    flight.finish()
                    # An answer that nobody has taken whole is not booked as delivered.
                    await flown.receipt_wanted.wait()
                    flight.land(await answer.receipt())
        except GatewayError as error:
            if flight.fail_leader(error):
                return True
            flight.fail(error)
        return False

    def _end(self, flown: OpenFlight, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._forget(flown)
        metrics.FLIGHTS.dec()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("unforeseen_exception", exc_info=error)
        # Whatever has happened, nobody waits for ever.
        flown.flight.fail(GatewayError(ErrorReason.ERROR_REASON_INTERNAL, "internal error"))

    def _forget(self, flown: OpenFlight) -> None:
        if self._open.get(flown.flight_id) is flown:
            del self._open[flown.flight_id]

    async def close(self) -> None:
        """Ends what is still open, as if its clients had left."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
