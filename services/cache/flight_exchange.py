"""Hands parts of answers from the routers that lead them to those that follow: the rim around flight_leases.py."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from joulegate.cache.v1 import cache_service_pb2, flight_pb2, flight_service_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.cache import metrics
from services.cache.flight_leases import FlightLeases, Lead, LookAgain, Order, Restart, Unwant, Want
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError
from services.runtime.outbox import Outbox

pb = flight_service_pb2
CHECK_S = 1.0
MAX_ID_CHARACTERS = 128
MAX_FLIGHT_ID_BYTES = 64


# What is said to a router: which answer is wanted, which relay is not any more, or only that the cache lives.
_Wish = pb.WantedFlight | int | None


@dataclass(frozen=True, slots=True)
class Boarded:
    """A router that knows what to do on a miss."""

    role: flight_pb2.FlightRole.ValueType
    _leases: FlightLeases
    # The lead that it was given for this; empty when it had it before, or has none.
    _granted: bytes

    def give_up(self) -> None:
        """There was no miss."""
        if self._granted:
            self._leases.stored(self._granted)


class FlightExchange:
    """Use as an async context manager. After `draining` it arbitrates no more, and lets go of its routers once nobody follows."""

    def __init__(self, clock: Clock, draining: asyncio.Event) -> None:
        self._clock = clock
        self._draining = draining
        self._leases = FlightLeases()
        self._routers: dict[str, Outbox[_Wish]] = {}
        self._followers: dict[int, asyncio.Queue[pb.FollowResponse]] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    async def __aenter__(self) -> "FlightExchange":
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._drain())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def board(self, request: cache_service_pb2.LookUpRequest) -> Boarded | None:
        """What a router is to do if its request misses; None where that is not asked, or not for this service to say."""
        boarding = request.boarding
        flight_id, router_id = boarding.flight_id, boarding.router_id
        if not 0 < len(flight_id) <= MAX_FLIGHT_ID_BYTES or self._draining.is_set():
            return None
        was_led = self._leases.is_led(flight_id)
        leads = self._leases.board(flight_id, router_id, self._clock.monotonic())
        if leads is None:
            return None
        role = flight_pb2.FLIGHT_ROLE_LEAD if leads else flight_pb2.FLIGHT_ROLE_FOLLOW
        return Boarded(role, self._leases, flight_id if leads and not was_led else b"")

    def stored(self, flight_id: bytes) -> None:
        """The answer is there for everybody."""
        self._leases.stored(flight_id)

    async def share(self, requests: AsyncIterator[pb.ShareRequest]) -> AsyncIterator[pb.ShareResponse]:
        """One router's stream. Raises GatewayError."""
        first = await anext(requests, pb.ShareRequest())
        router_id = first.hello.router_id
        if not 0 < len(router_id) <= MAX_ID_CHARACTERS:
            raise GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "the first message must say hello with a router_id")
        outbox = self._enter(router_id)
        listening = asyncio.create_task(self._listen(router_id, outbox, requests))
        try:
            yield pb.ShareResponse(ready=pb.ShareReady())
            while wishes := await outbox.batch():
                yield pb.ShareResponse(
                    wanted=[wish for wish in wishes if isinstance(wish, pb.WantedFlight)],
                    unwanted_relay_ids=[wish for wish in wishes if isinstance(wish, int)],
                )
        finally:
            listening.cancel()
            self._leave(router_id, outbox)

    @asynccontextmanager
    async def following(self, request: pb.FollowRequest) -> AsyncIterator[AsyncIterator[pb.FollowResponse]]:
        """The parts of an answer for one follower, up to the last."""
        relay_id, orders = self._leases.follow(request.flight_id, request.router_id)
        queue = self._followers[relay_id] = asyncio.Queue()
        self._note_relays()
        try:
            self._carry_out(orders)
            yield _up_to_the_last(queue)
        finally:
            del self._followers[relay_id]
            self._carry_out(self._leases.unfollow(relay_id))
            self._note_relays()

    def _enter(self, router_id: str) -> Outbox[_Wish]:
        previous = self._routers.get(router_id)
        if previous is not None:
            previous.close()
        outbox = self._routers[router_id] = Outbox()
        metrics.FLIGHT_ROUTERS.set(len(self._routers))
        self._carry_out(self._leases.enter(router_id, self._clock.monotonic()))
        return outbox

    def _leave(self, router_id: str, outbox: Outbox[_Wish]) -> None:
        outbox.close()
        if self._routers.get(router_id) is outbox:
            del self._routers[router_id]
            metrics.FLIGHT_ROUTERS.set(len(self._routers))
            self._carry_out(self._leases.leave(router_id))

    async def _listen(self, router_id: str, outbox: Outbox[_Wish], requests: AsyncIterator[pb.ShareRequest]) -> None:
        try:
            async for request in requests:
                self._leases.hear(router_id, self._clock.monotonic())
                for relayed in request.parts:
                    self._relay(router_id, relayed)
                if not request.parts:
                    outbox.put(None)
        finally:
            outbox.close()

    def _relay(self, router_id: str, relayed: pb.RelayedPart) -> None:
        if relayed.gone:
            self._carry_out(self._leases.gone(relayed.relay_id, router_id))
        elif self._leases.passes(relayed.relay_id, router_id, is_last(relayed.part)):
            self._followers[relayed.relay_id].put_nowait(pb.FollowResponse(part=relayed.part))

    def _carry_out(self, orders: Iterable[Order]) -> None:
        for order in orders:
            match order:
                case Want(router_id, relay_id, flight_id):
                    self._routers[router_id].put(pb.WantedFlight(relay_id=relay_id, flight_id=flight_id))
                case Unwant(router_id, relay_id):
                    if router_id in self._routers:
                        self._routers[router_id].put(relay_id)
                case Lead(relay_id):
                    metrics.FLIGHT_PROMOTIONS.inc()
                    self._tell(relay_id, pb.FollowResponse(turn=pb.FOLLOW_TURN_LEAD))
                case LookAgain(relay_id):
                    self._tell(relay_id, pb.FollowResponse(turn=pb.FOLLOW_TURN_LOOK_AGAIN))
                case Restart(relay_id):
                    self._tell(relay_id, pb.FollowResponse(part=flight_pb2.FlightPart(restarted=True)))

    def _tell(self, relay_id: int, response: pb.FollowResponse) -> None:
        self._followers[relay_id].put_nowait(response)

    def _note_relays(self) -> None:
        metrics.FLIGHT_RELAYS.set(len(self._followers))
        if self._followers:
            self._idle.clear()
        else:
            self._idle.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            for router_id in self._leases.silent(self._clock.monotonic()):
                self._leave(router_id, self._routers[router_id])

    async def _drain(self) -> None:
        await self._draining.wait()
        await self._idle.wait()
        for outbox in self._routers.values():
            outbox.close()


def is_last(part: flight_pb2.FlightPart) -> bool:
    """Whether nothing follows this part."""
    return part.HasField("landed") or bool(part.failure)


async def _up_to_the_last(queue: asyncio.Queue[pb.FollowResponse]) -> AsyncIterator[pb.FollowResponse]:
    while True:
        response = await queue.get()
        yield response
        if response.turn or is_last(response.part):
            return
