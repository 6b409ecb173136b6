"""The gRPC face of dispatch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

import grpc

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from joulegate.dispatch.v1 import dispatch_service_pb2_grpc as pb_grpc
from services.dispatch.attempts import Attempts
from services.dispatch.feed import Feed
from services.dispatch.roster import Roster

Context = grpc.aio.ServicerContext[Any, Any]
HEARTBEAT_S = 10.0
# Between two messages of a watch, and between two looks for news of which nobody tells.
SPACING_S = 0.25


class DispatchServicer(pb_grpc.DispatchServiceServicer):
    """`headers` gives the trace context that goes upstream with a call."""

    def __init__(
        self,
        attempts: Attempts,
        roster: Roster,
        draining: asyncio.Event,
        headers: Callable[[Context], Mapping[str, str]],
        heartbeat_s: float = HEARTBEAT_S,
        spacing_s: float = SPACING_S,
    ) -> None:
        self._attempts = attempts
        self._roster = roster
        self._draining = draining
        self._headers = headers
        self._heartbeat_s = heartbeat_s
        self._spacing_s = spacing_s

    def Dispatch(self, request: pb.DispatchRequest, context: Context) -> AsyncIterator[pb.DispatchResponse]:
        return self._attempts.dispatch(request, self._headers(context), context.time_remaining())

    async def ListProviders(self, request: pb.ListProvidersRequest, context: Context) -> pb.ListProvidersResponse:
        return pb.ListProvidersResponse(providers=self._roster.describe())

    async def WatchProviders(self, request: pb.WatchProvidersRequest, context: Context) -> AsyncIterator[pb.WatchProvidersResponse]:
        feed = Feed(self._roster, self._heartbeat_s)
        while not self._draining.is_set():
            change = self._roster.change
            if (news := feed.next(self._roster.now())) is not None:
                yield news
                # What happens within this time is told together.
                await _waited(self._draining, self._spacing_s)
            else:
                await _waited(change, self._spacing_s)


async def _waited(event: asyncio.Event, within_s: float) -> None:
    """Returns at the event, or at the end of the time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()
