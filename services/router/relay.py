"""The router's end of FlightService: hands its answers on to routers that want them, and follows theirs."""

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc.aio import EOF

from joulegate.cache.v1 import flight_pb2
from joulegate.cache.v1 import flight_service_pb2 as pb
from joulegate.cache.v1 import flight_service_pb2_grpc as pb_grpc
from services.router.flight import Flight, LookAgainError
from services.router.flights import Flights, OpenFlight
from services.runtime import logs
from services.runtime.errors import GatewayError
from services.runtime.outbox import Outbox

log = logs.get(__name__)

RECONNECT_S = (0.05, 1.0)
HEARTBEAT_S = 2.0
# A cache that does not even answer for so long is not there.
SILENCE_S = 10.0
# A part, or nothing but the word that this router lives.
Outgoing = Outbox[pb.RelayedPart | None]
Relays = dict[int, asyncio.Task[None]]


class Relay:
    """Made by `open_relay`, which keeps it connected. Without a connection every router asks for itself."""

    def __init__(self, stub: pb_grpc.FlightServiceStub, router_id: str, flights: Flights) -> None:
        self._stub = stub
        self._router_id = router_id
        self._flights = flights
        self._relays: Relays = {}

    async def keep_connected(self) -> None:
        """Runs until cancelled."""
        delay = RECONNECT_S[0]
        while True:
            stood = await self._converse()
            delay = RECONNECT_S[0] if stood else min(delay * 2, RECONNECT_S[1])
            await asyncio.sleep(delay)

    async def _converse(self) -> bool:
        """One stream from connect to break; says whether it ever stood."""
        stream: Any = self._stub.Share()
        stood, writer, outbox = False, None, Outgoing()
        # The cache numbers relays anew when it was restarted.
        relays: Relays = {}
        self._relays = relays
        try:
            await stream.write(pb.ShareRequest(hello=pb.ShareHello(router_id=self._router_id)))
            if await stream.read() is EOF:
                return False
            stood = True
            writer = asyncio.create_task(_write(stream, outbox))
            self._flights.connect(self._router_id, self._stub)
            while True:
                async with asyncio.timeout(SILENCE_S):
                    response = await stream.read()
                if response is EOF:
                    return True
                self._heed(response, relays, outbox)
        except (grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError):
            # An older cache does not know the service; one that is away is noticed by other calls.
            if stood:
                log.warning("flights_disconnected", relays=len(self._relays))
        finally:
            self._flights.disconnect()
            stream.cancel()
            for task in [*relays.values(), *([writer] if writer else [])]:
                task.cancel()
        return stood

    def _heed(self, response: pb.ShareResponse, relays: Relays, outbox: Outgoing) -> None:
        for wanted in response.wanted:
            task = relays[wanted.relay_id] = asyncio.create_task(self._hand_on(wanted.relay_id, wanted.flight_id, outbox))
            task.add_done_callback(functools.partial(_forget, relays, wanted.relay_id))
        for relay_id in response.unwanted_relay_ids:
            if relay_id in relays:
                relays[relay_id].cancel()

    async def _hand_on(self, relay_id: int, flight_id: bytes, outbox: Outgoing) -> None:
        try:
            flown = await self._flights.departure(flight_id)
            if flown is None:
                raise LookAgainError
            parts = _parts(flown)
            try:
                async for part in parts:
                    outbox.put(pb.RelayedPart(relay_id=relay_id, part=part))
            finally:
                await parts.aclose()
        except LookAgainError:
            outbox.put(pb.RelayedPart(relay_id=relay_id, gone=True))

    async def flushed(self, until: asyncio.Task[None]) -> None:
        """Waits until nobody wants anything of this router any more, or until that task is done."""
        while self._relays and not until.done():
            await asyncio.wait([until, *self._relays.values()], return_when=asyncio.FIRST_COMPLETED)


def _forget(relays: Relays, relay_id: int, task: asyncio.Task[None]) -> None:
    del relays[relay_id]
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("unforeseen_exception", exc_info=error)


async def _parts(flown: OpenFlight) -> AsyncGenerator[flight_pb2.FlightPart, None]:
    """A flight from its first event to its end. Raises LookAgainError when there is none after all."""
    news = asyncio.Event()
    flight = flown.flight
    listener = flight.join(news.set, None)
    try:
        has_begun = False
        while True:
            if listener.restarted:
                listener.restarted = False
                if has_begun:
                    yield flight_pb2.FlightPart(restarted=True)
                has_begun = False
            if flight.answer is not None and not has_begun:
                has_begun = True
                yield flight_pb2.FlightPart(begun=_source(flight))
            try:
                events = listener.take()
            except LookAgainError:
                raise
            except GatewayError as error:
                yield flight_pb2.FlightPart(failure=error.to_status().SerializeToString())
                return
            if events:
                yield flight_pb2.FlightPart(events=events)
            elif flight.is_finished:
                break
            else:
                news.clear()
                await news.wait()
        yield flight_pb2.FlightPart(finished=True)
        flown.receipt_wanted.set()
        while flight.receipt is None and flight.error is None:
            news.clear()
            await news.wait()
        if flight.error is not None:
            yield flight_pb2.FlightPart(failure=flight.error.to_status().SerializeToString())
        else:
            landed = flight_pb2.FlightLanding(receipt=flight.receipt, usage_chunk=flight.usage_chunk())
            yield flight_pb2.FlightPart(landed=landed)
    finally:
        flight.leave(listener)


def _source(flight: Flight) -> flight_pb2.FlightSource:
    assert flight.answer is not None
    source = flight.answer.source
    return flight_pb2.FlightSource(
        provider=source.provider,
        model=source.model,
        failed_attempt_count=source.failed_attempts,
        warnings=source.warnings,
        downgraded_to=source.downgraded_to,
        curtailed_for=source.curtailed_for,
    )


async def _write(stream: Any, outbox: Outgoing) -> None:
    beating = asyncio.create_task(_beat(outbox))
    try:
        while True:
            batch = await outbox.batch()
            parts = [part for part in batch if part is not None]
            if parts:
                await stream.write(pb.ShareRequest(parts=parts))
            if len(parts) < len(batch):
                # By itself, for only an empty message is answered.
                await stream.write(pb.ShareRequest())
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        # The reader sees the same break.
        stream.cancel()
    finally:
        beating.cancel()


async def _beat(outbox: Outgoing) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        outbox.put(None)


@asynccontextmanager
async def open_relay(
    stub: pb_grpc.FlightServiceStub, router_id: str, flights: Flights, draining: asyncio.Event, drain_s: float
) -> AsyncIterator[None]:
    """Keeps a relay connected. On leaving, what other routers follow may go on until `drain_s` after the draining began."""
    relay = Relay(stub, router_id, flights)
    keeper = asyncio.create_task(relay.keep_connected())
    grace = asyncio.create_task(_grace(draining, drain_s))
    try:
        yield
        if draining.is_set():
            await relay.flushed(grace)
    finally:
        for task in (keeper, grace):
            task.cancel()
        await asyncio.gather(keeper, grace, return_exceptions=True)


async def _grace(draining: asyncio.Event, drain_s: float) -> None:
    await draining.wait()
    await asyncio.sleep(drain_s)
