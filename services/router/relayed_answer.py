"""An answer that another router leads, as it comes through the cache service."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.rpc import status_pb2
from grpc.aio import EOF

from joulegate.cache.v1 import flight_pb2
from joulegate.cache.v1 import flight_service_pb2 as pb
from joulegate.chat.v1 import chat_pb2, receipt_pb2
from services.router import metrics
from services.router.answer import Events, Source
from services.router.flight import LookAgainError
from services.runtime.errors import GatewayError


class Restarted(Exception):  # noqa: N818 - a turn that following takes, not a fault
    """The answer begins again, from another router."""


class LeaderLost(Exception):  # noqa: N818 - likewise
    """Nobody else leads: this router has to."""


class RelayedAnswer:
    """One Follow call. Each method may raise Restarted, LeaderLost, LookAgainError, or the GatewayError that ended the answer for all."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._begun = flight_pb2.FlightSource()
        self._events: Events = ()
        self._is_finished = False
        self._landing = flight_pb2.FlightLanding()
        self._is_lost = False

    @property
    def source(self) -> Source:
        begun = self._begun
        return Source(
            begun.provider,
            begun.model,
            receipt_pb2.CACHE_STATUS_COALESCED,
            failed_attempts=begun.failed_attempt_count,
            warnings=begun.warnings,
            downgraded_to=begun.downgraded_to,
            curtailed_for=begun.curtailed_for if begun.HasField("curtailed_for") else None,
        )

    async def begin(self) -> None:
        """Waits for the source; again after Restarted."""
        self._is_finished = False
        part = await self._read()
        while not part.HasField("begun"):
            part = await self._read()
        self._begun, self._events = part.begun, part.events

    async def batches(self) -> AsyncIterator[Events]:
        if self._events:
            yield self._events
        while not self._is_finished:
            part = await self._read()
            self._is_finished = part.finished
            if part.events:
                yield part.events

    async def receipt(self) -> receipt_pb2.Receipt:
        """The leader's; without figures when the leader was lost before it had them, for the answer is whole all the same."""
        try:
            while not self._landing.HasField("receipt"):
                self._landing = (await self._read()).landed
        except (LeaderLost, LookAgainError, Restarted):
            return receipt_pb2.Receipt(provider=self._begun.provider, model=self._begun.model)
        return self._landing.receipt

    def usage_chunk(self) -> chat_pb2.ChatCompletionChunk:
        return self._landing.usage_chunk

    def leave(self, error: BaseException | None) -> None:
        self._call.cancel()

    def lose(self) -> None:
        """The way to the leader is broken, whether or not the call has noticed."""
        self._is_lost = True
        self._call.cancel()

    async def _read(self) -> flight_pb2.FlightPart:
        try:
            response = await self._call.read()
        except asyncio.CancelledError:
            if not self._is_lost:
                raise
            raise LeaderLost from None
        except grpc.aio.AioRpcError:
            metrics.CACHE_FAULTS.labels("Follow").inc()
            raise LeaderLost from None
        if response is EOF or response.turn == pb.FOLLOW_TURN_LEAD:
            raise LeaderLost
        if response.turn == pb.FOLLOW_TURN_LOOK_AGAIN:
            raise LookAgainError
        if response.part.restarted:
            raise Restarted
        if response.part.failure:
            raise GatewayError.from_status(status_pb2.Status.FromString(response.part.failure))
        part: flight_pb2.FlightPart = response.part
        return part
