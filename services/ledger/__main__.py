"""The ledger process."""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from joulegate.ledger.v1 import admin_service_pb2_grpc, ledger_service_pb2_grpc
from services.ledger import carbon, metrics
from services.ledger.admin import AdminServicer
from services.ledger.books import Books
from services.ledger.cost import Tariffs
from services.ledger.figures import Figurer
from services.ledger.lock import owned
from services.ledger.overrides import DeclaredPrice, read_overrides
from services.ledger.reads import Reads
from services.ledger.servicer import LedgerServicer
from services.ledger.settings import LedgerSettings
from services.ledger.store import Reader, Writer, open_books
from services.runtime import app
from services.runtime.clock import SystemClock
from services.runtime.config_file import read_config
from services.runtime.mesh import Mesh
from services.runtime.settings import SettingsError


@asynccontextmanager
async def build(settings: LedgerSettings, mesh: Mesh) -> AsyncIterator[None]:
    """The ledger's services on the mesh. Raises SettingsError when the books cannot be opened."""
    async with AsyncExitStack() as stack:
        figurer = _figurer(settings)
        stack.enter_context(owned(settings.database))
        writer, reader = _open(settings, stack)
        books = Books(writer, figurer, _thread("ledger-writer", stack), SystemClock(), settings.orphan_grace_s)
        reads = Reads(reader, _thread("ledger-reader", stack))
        books.expect(writer.waiting_routers())
        metrics.OPEN_INTENTS.set(reader.totals()[1])
        ledger_service_pb2_grpc.add_LedgerServiceServicer_to_server(LedgerServicer(books, reads), mesh.registry)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(reads, settings.admin_api_key), mesh.registry)
        await stack.enter_async_context(_running(books.run(), books.watch(), _drain(books, mesh.draining)))
        yield


def _figurer(settings: LedgerSettings) -> Figurer:
    overrides = read_overrides(read_config(settings.config))
    carbon.check_zones(overrides.providers.values())
    unknown = DeclaredPrice(Decimal(str(settings.unknown_input_usd_per_million)), Decimal(str(settings.unknown_output_usd_per_million)))
    return Figurer(overrides, Tariffs(overrides, unknown))


def _open(settings: LedgerSettings, stack: AsyncExitStack) -> tuple[Writer, Reader]:
    try:
        return stack.enter_context(open_books(settings.database, settings.synchronous))
    except SQLAlchemyError as error:
        raise SettingsError([f"LEDGER_DB_PATH={str(settings.database)!r}: {error}"]) from error


def _thread(name: str, stack: AsyncExitStack) -> Executor:
    return stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix=name))


@asynccontextmanager
async def _running(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs background work while entered. Work that fails takes the process down: a ledger without its writer must not look alive."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
        yield
        for task in tasks:
            task.cancel()


async def _drain(books: Books, draining: asyncio.Event) -> None:
    await draining.wait()
    books.drain()


def main() -> int:
    return app.run("ledger", LedgerSettings, build)


if __name__ == "__main__":
    sys.exit(main())
