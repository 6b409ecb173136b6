"""The gRPC face of dispatch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import grpc

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from joulegate.dispatch.v1 import dispatch_service_pb2_grpc as pb_grpc
from services.dispatch.attempts import Attempts
from services.dispatch.roster import Roster

Context = grpc.aio.ServicerContext[Any, Any]
HEARTBEAT_S = 10.0


class DispatchServicer(pb_grpc.DispatchServiceServicer):
    """`headers` gives the trace context that goes upstream with a call."""

    def __init__(
        self,
        attempts: Attempts,
        roster: Roster,
        draining: asyncio.Event,
        headers: Callable[[Context], Mapping[str, str]],
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._attempts = attempts
        self._roster = roster
        self._draining = draining
        self._headers = headers
        self._heartbeat_s = heartbeat_s

    async def Dispatch(self, request: pb.DispatchRequest, context: Context) -> AsyncIterator[pb.DispatchResponse]:
        responses = self._attempts.dispatch(request, self._headers(context), context.time_remaining())
        async with aclosing(responses):
            async for response in responses:
                yield response

    async def ListProviders(self, request: pb.ListProvidersRequest, context: Context) -> pb.ListProvidersResponse:
        return pb.ListProvidersResponse(providers=self._roster.describe())

    async def WatchProviders(self, request: pb.WatchProvidersRequest, context: Context) -> AsyncIterator[pb.WatchProvidersResponse]:
        while not self._draining.is_set():
            change = self._roster.change
            yield pb.WatchProvidersResponse(providers=self._roster.describe())
            await _first(change, self._draining, self._heartbeat_s)


async def _first(one: asyncio.Event, other: asyncio.Event, within_s: float) -> None:
    """Waits for either event, or the end of the time."""
    tasks = [asyncio.create_task(event.wait()) for event in (one, other)]
    try:
        await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
