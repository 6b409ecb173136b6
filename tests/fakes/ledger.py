"""A ledger whose acknowledgements a test gives by hand, or that gives them at once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1 import ledger_service_pb2_grpc as pb_grpc
from joulegate.ledger.v1.reservation_pb2 import Denial, Grant
from services.runtime.errors import GatewayError

PATIENCE_S = 30


class Conversation:
    """One Book call as the ledger sees it."""

    def __init__(self) -> None:
        self.router_id = ""
        self.requests: asyncio.Queue[pb.BookRequest] = asyncio.Queue()
        self.responses: asyncio.Queue[pb.BookResponse | GatewayError] = asyncio.Queue()

    async def heard(self) -> pb.BookRequest:
        """The next message with records."""
        return await asyncio.wait_for(self.requests.get(), PATIENCE_S)

    def acknowledge(self, request: pb.BookRequest, **figures: Any) -> None:
        """Answers a message, and lets everybody in; `figures` go into each settlement's acknowledgement."""
        self.responses.put_nowait(
            pb.BookResponse(
                intent_acks=[pb.IntentAck(request_id=intent.request_id) for intent in request.intents if not intent.HasField("wishes")],
                grants=[Grant(request_id=intent.request_id) for intent in request.intents if intent.HasField("wishes")],
                settlement_acks=[pb.SettlementAck(request_id=each.request_id, **figures) for each in request.settlements],
                release_acks=[pb.ReleaseAck(request_id=release.request_id) for release in request.releases],
            )
        )

    async def grant(self, **members: Any) -> pb.Intent:
        """Lets the next request in, for which these members of the grant are; gives its intent."""
        [intent] = (await self.heard()).intents
        self.responses.put_nowait(pb.BookResponse(grants=[Grant(request_id=intent.request_id, **members)]))
        return intent

    async def deny(self, **members: Any) -> pb.Intent:
        """Keeps the next request out; gives its intent."""
        [intent] = (await self.heard()).intents
        self.responses.put_nowait(pb.BookResponse(denials=[Denial(request_id=intent.request_id, **members)]))
        return intent

    def fail(self, error: GatewayError) -> None:
        self.responses.put_nowait(error)

    async def read(self, requests: AsyncIterator[pb.BookRequest]) -> None:
        async for request in requests:
            self.requests.put_nowait(request)


class FakeLedger(pb_grpc.LedgerServiceServicer):
    """Keeps what it hears. `conversations` gives each Book call as it comes; `is_silent` ones are not even told that it is ready."""

    def __init__(self) -> None:
        self.conversations: asyncio.Queue[Conversation] = asyncio.Queue()
        self.is_silent = False
        self.totals = pb.Totals()

    async def conversation(self) -> Conversation:
        return await asyncio.wait_for(self.conversations.get(), PATIENCE_S)

    async def Book(self, request_iterator: AsyncIterator[pb.BookRequest], context: Any) -> AsyncIterator[pb.BookResponse]:
        requests = aiter(request_iterator)
        conversation = Conversation()
        conversation.router_id = (await anext(requests)).hello.router_id
        reading = asyncio.create_task(conversation.read(requests))
        try:
            if not self.is_silent:
                self.conversations.put_nowait(conversation)
                yield pb.BookResponse(ready=pb.Ready())
            while True:
                response = await conversation.responses.get()
                if isinstance(response, GatewayError):
                    raise response
                yield response
        finally:
            reading.cancel()

    async def GetTotals(self, request: pb.GetTotalsRequest, context: Any) -> pb.GetTotalsResponse:
        return pb.GetTotalsResponse(totals=self.totals)
