"""AdminService over gRPC: the books for operators, behind the admin key."""

from joulegate.ledger.v1 import admin_service_pb2 as pb
from joulegate.ledger.v1 import admin_service_pb2_grpc as pb_grpc
from services.ledger.paging import PageTokens, page_size
from services.ledger.reads import Reads
from services.ledger.records import entry
from services.runtime.admin_key import AdminKey
from services.runtime.interceptors import Context, metadata_value


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
