"""LedgerService over gRPC."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1 import ledger_service_pb2_grpc as pb_grpc
from services.ledger.books import Books
from services.ledger.intake import MAX_ID_CHARACTERS
from services.ledger.reads import Reads
from services.ledger.stream import RouterStream
from services.runtime.errors import GatewayError

Context = grpc.aio.ServicerContext[Any, Any]


class LedgerServicer(pb_grpc.LedgerServiceServicer):
    """Connects routers to the books."""

    def __init__(self, books: Books, reads: Reads) -> None:
        self._books = books
        self._reads = reads

    async def Book(self, request_iterator: AsyncIterator[pb.BookRequest], context: Context) -> AsyncIterator[pb.BookResponse]:
        requests = aiter(request_iterator)
        first = await anext(requests, pb.BookRequest())
        router_id = first.hello.router_id
        if not 0 < len(router_id) <= MAX_ID_CHARACTERS or "\0" in router_id:
            raise GatewayError(
                ErrorReason.ERROR_REASON_INVALID_REQUEST, "the first message must say hello with a router_id", {"param": "hello"}
            )
        stream = self._books.open(router_id)
        try:
            stream.read_with(asyncio.create_task(self._read(stream, first, requests)))
            yield pb.BookResponse(ready=pb.Ready())
            async for response in stream:
                yield response
        finally:
            self._books.close(stream)

    async def _read(self, stream: RouterStream, first: pb.BookRequest, rest: AsyncIterator[pb.BookRequest]) -> None:
        await self._books.take(stream, first)
        async for request in rest:
            await self._books.take(stream, request)
            stream.heard(request.heeded_revocation)

    async def GetTotals(self, request: pb.GetTotalsRequest, context: Context) -> pb.GetTotalsResponse:
        totals, open_intents = await self._reads.totals()
        return pb.GetTotalsResponse(totals=pb.Totals(open_intent_count=open_intents, **totals._asdict()))
