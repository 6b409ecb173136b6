"""The reading side of the ledger: questions that never wait for the writer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import TypeVar

from google.api.httpbody_pb2 import HttpBody
from sqlalchemy.exc import SQLAlchemyError

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.ledger.booking import Totals
from services.ledger.export import FORMATS
from services.ledger.export_store import ExportReader, Span
from services.ledger.figures import Figurer
from services.ledger.records import Row
from services.ledger.rederivation import Compared, compare, merged
from services.ledger.report import Group, Question, Sums
from services.ledger.report_store import ReportReader
from services.ledger.store import Reader
from services.runtime.errors import GatewayError

T = TypeVar("T")


class Reads:
    """The store's reader, on a thread of its own."""

    def __init__(self, reader: Reader, thread: Executor) -> None:
        self._reader = reader
        self._thread = thread

    async def totals(self) -> tuple[Totals, int]:
        """The sums over all rows, and the number of open intents."""
        return await self._ask(self._reader.totals)

    async def entries(self, limit: int, before: int | None, request_id: str) -> list[tuple[int, Row]]:
        """Rows with their sequence numbers, newest first."""
        return await self._ask(lambda: self._reader.entries(limit, before, request_id))

    async def _ask(self, question: Callable[[], T]) -> T:
        return await _on(self._thread, question)


class Reports:
    """The store's sums. A report may take seconds, so it has a thread that nothing else waits for."""

    def __init__(self, reader: ReportReader, thread: Executor) -> None:
        self._reader = reader
        self._thread = thread

    async def sums(self, asked: Question, limit: int, newest: int | None = None, after: Group = ()) -> tuple[int, list[tuple[Group, Sums]]]:
        """The first groups after `after`, of rows up to `newest`, and the newest row that is counted."""
        return await _on(self._thread, lambda: self._reader.sums(asked, limit, newest, after))


class Exports:
    """The store's rows as files. A page at a time is read and written, when the one before has been taken."""

    def __init__(self, reader: ExportReader, thread: Executor) -> None:
        self._reader = reader
        self._thread = thread

    async def pieces(self, file_format: str, span: Span) -> AsyncIterator[HttpBody]:
        """A file in one of the formats. The first piece says what it is."""
        exporter = await _on(self._thread, FORMATS[file_format])
        yield HttpBody(content_type=exporter.content_type, data=await _on(self._thread, exporter.begin))
        pages = self._reader.pages(span)

        def piece() -> bytes | None:
            page = next(pages, None)
            return None if page is None else exporter.rows(page)

        while (data := await _on(self._thread, piece)) is not None:
            yield HttpBody(data=data)
        yield HttpBody(data=await _on(self._thread, exporter.end))

    async def compared(self, span: Span, figurer: Figurer) -> Compared:
        """Rows as they were booked and as the figurer has them, which is to know no live source."""
        pages = self._reader.pages(span)

        def part() -> Compared | None:
            page = next(pages, None)
            return None if page is None else compare((placed.linked.row for placed in page), figurer)

        whole: Compared = {}
        while (found := await _on(self._thread, part)) is not None:
            whole = merged(whole, found)
        return whole


async def _on(thread: Executor, question: Callable[[], T]) -> T:
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, question)
    except SQLAlchemyError as error:
        raise GatewayError(ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE, "the books cannot be read", retry_after_s=1) from error
