"""FlightService over the exchange."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from joulegate.cache.v1 import flight_service_pb2 as pb
from joulegate.cache.v1 import flight_service_pb2_grpc as pb_grpc
from services.cache.flight_exchange import FlightExchange

Context = grpc.aio.ServicerContext[Any, Any]


class FlightServicer(pb_grpc.FlightServiceServicer):
    """See flight_service.proto."""

    def __init__(self, exchange: FlightExchange) -> None:
        self._exchange = exchange

    async def Share(self, request_iterator: AsyncIterator[pb.ShareRequest], context: Context) -> AsyncIterator[pb.ShareResponse]:
        responses = self._exchange.share(aiter(request_iterator))
        try:
            async for response in responses:
                yield response
        finally:
            await responses.aclose()  # type: ignore[attr-defined]

    async def Follow(self, request: pb.FollowRequest, context: Context) -> AsyncIterator[pb.FollowResponse]:
        async with self._exchange.following(request) as responses:
            async for response in responses:
                yield response
