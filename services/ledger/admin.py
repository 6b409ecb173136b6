"""AdminService over gRPC: the books and the keys for operators, behind the admin key."""

from collections.abc import AsyncIterator

from google.api.httpbody_pb2 import HttpBody

from joulegate.ledger.v1 import admin_service_pb2 as pb
from joulegate.ledger.v1 import admin_service_pb2_grpc as pb_grpc
from services.ledger import api_key, key_documents, report
from services.ledger.api_key import message_of
from services.ledger.budget_keeper import BudgetKeeper
from services.ledger.budget_messages import summary, usage_of
from services.ledger.export import FORMATS
from services.ledger.export_store import ALL, Span
from services.ledger.figures import Figurer
from services.ledger.keys import Keys
from services.ledger.paging import PageTokens, page_size
from services.ledger.reads import Exports, Reads, Reports
from services.ledger.records import entry
from services.runtime.admin_key import AdminKey
from services.runtime.clock import Clock
from services.runtime.interceptors import Context, metadata_value

_CREATED = (("x-http-status", "201"),)


class AdminServicer(pb_grpc.AdminServiceServicer):
    """See admin_service.proto."""

    def __init__(
        self,
        reads: Reads,
        reports: Reports,
        exports: Exports,
        keys: Keys,
        budgets: BudgetKeeper,
        figurer: Figurer,
        admin_key: str | None,
        clock: Clock,
        keys_are_demanded: bool = False,
    ) -> None:
        self._reads = reads
        self._reports = reports
        self._exports = exports
        self._keys = keys
        self._budgets = budgets
        # By what is known now, and no live source.
        self._figurer = figurer
        # Whether clients need a key: what they may all see without one is then the admin's.
        self._keys_are_demanded = keys_are_demanded
        self._admin_key = AdminKey(admin_key)
        self._tokens = PageTokens(admin_key or "")
        self._key_tokens = PageTokens(f"keys {admin_key}")
        self._budget_tokens = PageTokens(f"budgets {admin_key}")
        self._report_tokens = PageTokens(f"reports {admin_key}")
        self._clock = clock

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Context) -> pb.ListEntriesResponse:
        self._check(context)
        size = page_size(request.page_size)
        before = self._tokens.read(request.page_token, request.request_id)
        # One more than asked tells whether there is a next page.
        rows = await self._reads.entries(size + 1, before, request.request_id)
        more = len(rows) > size
        return pb.ListEntriesResponse(
            entries=[entry(row) for _, row in rows[:size]],
            next_page_token=self._tokens.write(rows[size - 1][0], request.request_id) if more else "",
        )

    async def GetReport(self, request: pb.GetReportRequest, context: Context) -> pb.GetReportResponse:
        self._check(context)
        size, asked = page_size(request.page_size), report.question(request, self._clock.now())
        token = self._report_tokens.open(request.page_token, report.same_report(request))
        if token is None:
            newest, groups = await self._reports.sums(asked, size + 1)
        else:
            position = report.read_position(token)
            asked = asked._replace(start_ns=position.start_ns, end_ns=position.end_ns)
            newest, groups = await self._reports.sums(asked, size + 1, position.newest, position.group)
        if len(groups) <= size:
            return report.response(asked, groups, "")
        last = report.Position(asked.start_ns, asked.end_ns, newest, groups[size - 1][0])
        return report.response(asked, groups[:size], self._report_tokens.seal(report.write_position(last), report.same_report(request)))

    async def GetRederivedReport(self, request: pb.GetRederivedReportRequest, context: Context) -> pb.GetRederivedReportResponse:
        self._check(context)
        times = {name: getattr(request, name) for name in ("start_time", "end_time") if request.HasField(name)}
        asked = report.question(pb.GetReportRequest(**times), self._clock.now())
        compared = await self._exports.compared(Span(asked.start_ns, asked.end_ns), self._figurer)
        return report.rederived(asked, self._figurer.version, compared)

    async def ExportEntries(self, request: pb.ExportEntriesRequest, context: Context) -> AsyncIterator[HttpBody]:
        self._check(context)
        file_format = request.format or "jsonl"
        if file_format not in FORMATS:
            raise api_key.invalid(f"format: {file_format!r} is none of {', '.join(FORMATS)}", "format")
        since_ns = report.nanoseconds(request.start_time, "start_time") if request.HasField("start_time") else ALL.since_ns
        until_ns = report.nanoseconds(request.end_time, "end_time") if request.HasField("end_time") else ALL.until_ns
        await context.send_initial_metadata((("content-disposition", f'attachment; filename="entries.{file_format}"'),))
        async for piece in self._exports.pieces(file_format, Span(since_ns, until_ns)):
            yield piece

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> pb.CreateKeyResponse:
        self._check(context)
        terms = api_key.terms_of(request.key)
        view, text = await self._keys.create(request.key.environment, terms)
        await context.send_initial_metadata(_CREATED)
        return pb.CreateKeyResponse(key=message_of(view), key_text=text)

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> pb.GetKeyResponse:
        self._check(context)
        return pb.GetKeyResponse(key=message_of(await self._keys.get(request.key_id)))

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        self._check(context)
        size, shown = page_size(request.page_size), "all" if request.show_revoked else ""
        before = self._key_tokens.read(request.page_token, shown)
        views = await self._keys.page(size + 1, before, show_revoked=request.show_revoked)
        more = len(views) > size
        return pb.ListKeysResponse(
            keys=[message_of(view) for _, view in views[:size]],
            next_page_token=self._key_tokens.write(views[size - 1][0], shown) if more else "",
        )

    async def UpdateKey(self, request: pb.UpdateKeyRequest, context: Context) -> pb.UpdateKeyResponse:
        self._check(context)
        return pb.UpdateKeyResponse(key=message_of(await self._keys.update(request.key, list(request.update_mask.paths))))

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.RevokeKeyResponse:
        self._check(context)
        return pb.RevokeKeyResponse(key=message_of(await self._keys.revoke(request.key_id)))

    async def CreateBudget(self, request: pb.CreateBudgetRequest, context: Context) -> pb.CreateBudgetResponse:
        self._check(context)
        view = await self._budgets.create(request.budget)
        await context.send_initial_metadata(_CREATED)
        return pb.CreateBudgetResponse(usage=usage_of(view))

    async def GetBudget(self, request: pb.GetBudgetRequest, context: Context) -> pb.GetBudgetResponse:
        self._check(context)
        return pb.GetBudgetResponse(usage=usage_of(await self._budgets.get(request.budget_id)))

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: Context) -> pb.ListBudgetsResponse:
        self._check(context)
        size = page_size(request.page_size)
        after = self._budget_tokens.open(request.page_token, b"")
        views = await self._budgets.page(size + 1, "" if after is None else after.decode())
        last = views[size - 1].budget.budget_id if len(views) > size else None
        return pb.ListBudgetsResponse(
            usages=[usage_of(view) for view in views[:size]],
            next_page_token="" if last is None else self._budget_tokens.seal(last.encode(), b""),
        )

    async def UpdateBudget(self, request: pb.UpdateBudgetRequest, context: Context) -> pb.UpdateBudgetResponse:
        self._check(context)
        return pb.UpdateBudgetResponse(usage=usage_of(await self._budgets.update(request.budget, list(request.update_mask.paths))))

    async def DeleteBudget(self, request: pb.DeleteBudgetRequest, context: Context) -> pb.DeleteBudgetResponse:
        self._check(context)
        await self._budgets.delete(request.budget_id)
        return pb.DeleteBudgetResponse()

    async def GetBudgetSummary(self, request: pb.GetBudgetSummaryRequest, context: Context) -> HttpBody:
        if self._keys_are_demanded:
            self._check(context)
        return _json(summary(*await self._budgets.everybody()))

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> HttpBody:
        self._check(context)
        wanted = key_documents.read(request.body.data)
        view, text = await self._keys.create(wanted.environment, wanted.terms)
        await context.send_initial_metadata(_CREATED)
        return _json(key_documents.created(view, text, wanted.warnings))

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> HttpBody:
        self._check(context)
        return _json([key_documents.document(view) for _, view in await self._keys.page(None)])

    async def DeleteApiKey(self, request: pb.DeleteApiKeyRequest, context: Context) -> HttpBody:
        self._check(context)
        return _json({"success": await self._keys.delete(request.key)})

    def _check(self, context: Context) -> None:
        self._admin_key.check(metadata_value(context, "authorization"))


def _json(document: object) -> HttpBody:
    return HttpBody(content_type="application/json", data=key_documents.encode(document))
