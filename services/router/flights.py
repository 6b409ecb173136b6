"""Identical requests in flight, each of which is one call: who asks what is on its way already, listens (docs/adr/0016)."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

from joulegate.cache.v1 import flight_service_pb2
from joulegate.cache.v1 import flight_service_pb2_grpc as flight_grpc
from joulegate.cache.v1.flight_pb2 import Boarding
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.router import metrics
from services.router.answer import Answer
from services.router.books import Books
from services.router.flight import Flight, LookAgainError
from services.router.holds import Holds
from services.router.question import Question
from services.router.relayed_answer import LeaderLost, RelayedAnswer, Restarted
from services.router.shared_answer import SharedAnswer
from services.runtime import logs
from services.runtime.errors import GatewayError

log = logs.get(__name__)


class OpenFlight:
    """A flight with what keeps it going."""

    def __init__(self, flight_id: bytes, forget: Callable[["OpenFlight"], None]) -> None:
        self.flight_id = flight_id
        self.flight = Flight(self._abandon)
        self.receipt_wanted = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._forget = forget
        # Set while another router leads.
        self.relayed: RelayedAnswer | None = None
        # What is left to be done when everybody has the answer.
        self.rest: Callable[[], Awaitable[None]] | None = None

    def _abandon(self, reason: GatewayError | None) -> None:
        # Whoever comes now starts afresh. The reason ends up in the books: a deadline is not a client that left.
        self._forget(self)
        if self.task is not None:
            self.task.cancel(reason)


# Makes the call that answers a question, in its name, for that flight. The answer has begun, and is to be left.
Ask = Callable[[Question, OpenFlight], Awaitable[Answer]]


class Flights:
    """The open flights of a router. `longest_s` bounds a call, whoever's it is."""

    def __init__(self, ask: Ask, books: Books, longest_s: float) -> None:
        self._ask = ask
        self._books = books
        self._longest_s = longest_s
        self._open: dict[bytes, OpenFlight] = {}
        # Those whose tasks run: they may have landed, or nobody may join them any more.
        self._flying: set[OpenFlight] = set()
        # What may still become a flight, or has been answered otherwise and is being stored.
        self._held: Holds[bytes] = Holds()
        self._departures: dict[bytes, asyncio.Event] = {}
        self._router_id = ""
        self._exchange: flight_grpc.FlightServiceStub | None = None
        # Counted when somebody looks, maybe in another thread.
        metrics.FLIGHTS.set_function(lambda: len(self._joinable()))
        metrics.FLIGHT_LISTENERS.set_function(lambda: sum(flight.request_count for flight in self._joinable()))

    def _joinable(self) -> list[Flight]:
        return [flown.flight for flown in list(self._open.values()) if not flown.flight.is_over]

    def connect(self, router_id: str, exchange: flight_grpc.FlightServiceStub) -> None:
        """From now on, flights may be shared with other routers."""
        self._router_id, self._exchange = router_id, exchange

    def disconnect(self) -> None:
        """Nobody can be followed any more, and who has been has to be replaced."""
        self._exchange = None
        for flown in self._open.values():
            if flown.relayed is not None:
                flown.relayed.lose()

    def board(self, flight_id: bytes, boarding: Boarding) -> None:
        """Fills in what a look-up says of this router; nothing while flights are not shared with others."""
        if self._exchange is not None:
            boarding.router_id, boarding.flight_id = self._router_id, flight_id

    def is_open(self, flight_id: bytes) -> bool:
        flown = self._open.get(flight_id)
        return flown is not None and not flown.flight.is_over

    def hold(self, flight_id: bytes) -> None:
        """Until it is let go, a router that wants this flight waits: there may be one, or its answer may be stored in a moment."""
        self._held.take(flight_id)

    def let_go(self, flight_id: bytes) -> None:
        if self._held.drop(flight_id):
            self._tell_departure(flight_id)

    async def departure(self, flight_id: bytes) -> OpenFlight | None:
        """The open flight, once it is decided whether there is one."""
        while (flown := self._open.get(flight_id)) is None and flight_id in self._held:
            await self._departures.setdefault(flight_id, asyncio.Event()).wait()
        return flown

    def _tell_departure(self, flight_id: bytes) -> None:
        if (waited_for := self._departures.pop(flight_id, None)) is not None:
            waited_for.set()

    def open(self, flight_id: bytes, question: Question, *, may_follow: bool = True, is_led_elsewhere: bool = False) -> OpenFlight:
        """The open flight, else a new one, which follows the router that leads it elsewhere. To be joined before anything is awaited."""
        flown = self._open.get(flight_id)
        if flown is None or flown.flight.is_over or not flown.flight.is_for(question) or (flown.relayed is not None and not may_follow):
            return self._launch(flight_id, follows=may_follow and is_led_elsewhere)
        return flown

    async def share(self, flown: OpenFlight, question: Question) -> Answer:
        """The answer to a question, begun. Raises GatewayError when none begins: LookAgainError when there was nothing to follow."""
        shared = SharedAnswer(flown.flight, question, self._books, flown.receipt_wanted.set)
        try:
            await shared.begun()
        except BaseException as error:
            shared.leave(error)
            raise
        return shared

    def _launch(self, flight_id: bytes, follows: bool) -> OpenFlight:
        flown = self._open[flight_id] = OpenFlight(flight_id, self._forget)
        if follows and self._exchange is not None:
            call = self._exchange.Follow(flight_service_pb2.FollowRequest(router_id=self._router_id, flight_id=flight_id))
            flown.relayed = RelayedAnswer(call)
        task = flown.task = asyncio.create_task(self._fly(flown))
        self._flying.add(flown)
        task.add_done_callback(lambda task: self._end(flown, task))
        self._tell_departure(flight_id)
        return flown

    async def _fly(self, flown: OpenFlight) -> None:
        flight = flown.flight
        if flown.relayed is not None:
            if not await self._follow(flown, flown.relayed):
                return
            flown.relayed = None
            metrics.FLIGHT_PROMOTIONS.inc()
        while (question := flight.appoint()) is not None:
            if not await self._lead(flown, question):
                if flown.rest is not None:
                    await flown.rest()
                return
            metrics.FLIGHT_PROMOTIONS.inc()
        # Only other routers listen: one of them has to lead.
        flight.fail(LookAgainError())

    async def _follow(self, flown: OpenFlight, relayed: RelayedAnswer) -> bool:
        """Takes what another router leads. Says whether this one has to lead instead."""
        flight = flown.flight
        try:
            while True:
                try:
                    await relayed.begin()
                    flight.begin(relayed)
                    async for events in relayed.batches():
                        flight.add(events)
                    flight.finish()
                    flight.land(await relayed.receipt())
                except Restarted:
                    flight.begin_anew()
                else:
                    return False
        except LeaderLost:
            flight.begin_anew()
            return True
        except LookAgainError as error:
            if flight.has_begun:
                flight.begin_anew()
                return True
            flight.fail(error)
        except GatewayError as error:
            flight.fail(error)
        finally:
            relayed.leave(None)
        return False

    async def _lead(self, flown: OpenFlight, question: Question) -> bool:
        """Makes the call in a listener's name. Says whether another one is to try."""
        flight = flown.flight
        if question.timeout_s != self._longest_s:
            question = dataclasses.replace(question, timeout_s=self._longest_s)
        # Longer than the request itself, whose client may leave before the others'.
        self._books.running.take(question.request_id)
        try:
            answer = await self._ask(question, flown)
            try:
                await _carry(flown, answer)
            except BaseException as error:
                answer.leave(error)
                raise
            answer.leave(None)
        except GatewayError as error:
            if flight.fail_leader(error):
                return True
            flight.fail(error)
        finally:
            self._books.running.drop(question.request_id)
        return False

    def _end(self, flown: OpenFlight, task: asyncio.Task[None]) -> None:
        self._flying.discard(flown)
        self._forget(flown)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("unforeseen_exception", exc_info=error)
        if not flown.flight.is_over:
            # Whatever has happened, nobody waits for ever.
            flown.flight.fail(GatewayError(ErrorReason.ERROR_REASON_INTERNAL, "internal error"))
        flown.flight.close()
        flown.task = flown.rest = None

    def _forget(self, flown: OpenFlight) -> None:
        if self._open.get(flown.flight_id) is flown:
            del self._open[flown.flight_id]

    async def close(self) -> None:
        """Ends what is still open, as if its clients had left. What has landed may be stored yet."""
        tasks = [flown.task for flown in self._flying if flown.task is not None and not flown.flight.is_over]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _carry(flown: OpenFlight, answer: Answer) -> None:
    """Takes an answer from its first event to its booking."""
    flight = flown.flight
    flight.begin(answer)
    async for events in answer.batches():
        flight.add(events)
    flight.finish()
    # An answer that nobody has taken whole is not booked as delivered.
    if not flight.is_awaited_whole:
        await flown.receipt_wanted.wait()
    flight.land(await answer.receipt())
