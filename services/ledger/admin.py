"""AdminService over gRPC: the books for operators, behind the admin key."""

import hmac
from typing import Any

import grpc

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import admin_service_pb2 as pb
from joulegate.ledger.v1 import admin_service_pb2_grpc as pb_grpc
from services.ledger.paging import PageTokens, page_size
from services.ledger.reads import Reads
from services.ledger.records import entry
from services.runtime.errors import GatewayError
from services.runtime.interceptors import metadata_value

Context = grpc.aio.ServicerContext[Any, Any]


class AdminKey:
    """The operator's key. None: the admin API is switched off."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def check(self, authorization: str | None) -> None:
        """Raises GatewayError unless `authorization` is `Bearer` and the key. Takes the same time for every wrong key."""
        if self._key is None:
            raise GatewayError(ErrorReason.ERROR_REASON_PERMISSION_DENIED, "the admin API is off: ADMIN_API_KEY is not set")
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._key.encode()):
            raise GatewayError(ErrorReason.ERROR_REASON_INVALID_API_KEY, "the admin key is missing or wrong")


class AdminServicer(pb_grpc.AdminServiceServicer):
    """Shows rows."""

    def __init__(self, reads: Reads, admin_key: str | None) -> None:
        self._reads = reads
        self._key = AdminKey(admin_key)
        self._tokens = PageTokens(admin_key or "")

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Context) -> pb.ListEntriesResponse:
        self._key.check(metadata_value(context, "authorization"))
        size = page_size(request.page_size)
        before = self._tokens.read(request.page_token, request.request_id)
        # One more than asked tells whether there is a next page.
        rows = await self._reads.entries(size + 1, before, request.request_id)
        more = len(rows) > size
        return pb.ListEntriesResponse(
            entries=[entry(row) for _, row in rows[:size]],
            next_page_token=self._tokens.write(rows[size - 1][0], request.request_id) if more else "",
        )
