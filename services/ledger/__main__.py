"""The ledger process."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from joulegate.ledger.v1 import (
    admin_service_pb2_grpc,
    key_service_pb2_grpc,
    ledger_service_pb2_grpc,
    policy_service_pb2_grpc,
    rates_service_pb2_grpc,
)
from services.ledger import carbon, figuring, live_grids, metrics, migration
from services.ledger.admin import AdminServicer
from services.ledger.alerts import Alerts
from services.ledger.books import Books
from services.ledger.budget_changes import Presume, open_budgets
from services.ledger.budget_keeper import BudgetKeeper
from services.ledger.carbon_sources import CarbonSource, ElectricityMaps, NationalGrid, WattTime
from services.ledger.engines import Place
from services.ledger.export_store import open_export
from services.ledger.key_servicer import KeyServicer
from services.ledger.key_store import open_keys
from services.ledger.keys import Keys, KeyThreads
from services.ledger.limits import Limits, default_limits, read_tiers
from services.ledger.live_grids import LiveGrids
from services.ledger.lock import owned
from services.ledger.places import cause_of, place_of, unusable
from services.ledger.policies import Policies
from services.ledger.policy_servicer import PolicyServicer
from services.ledger.policy_store import open_policies
from services.ledger.rate_servicer import RateServicer
from services.ledger.reads import Exports, Reads, Reports
from services.ledger.report_store import open_reports
from services.ledger.reserving import presumed
from services.ledger.retention import Retention
from services.ledger.servicer import LedgerServicer
from services.ledger.settings import LedgerSettings
from services.ledger.store import Reader, Terms, Writer, open_books
from services.ledger.wal import open_checkpoints
from services.runtime import app, logs
from services.runtime.clock import SystemClock
from services.runtime.config_file import read_config
from services.runtime.mesh import Mesh
from services.runtime.settings import SettingsError

log = logs.get(__name__)

# A server that starts together with the ledger gets the time for it.
START_PAUSES_S: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 1.6)


@asynccontextmanager
async def build(settings: LedgerSettings, mesh: Mesh) -> AsyncIterator[None]:
    """The ledger's services on the mesh. Raises SettingsError when the books cannot be opened."""
    async with AsyncExitStack() as stack:
        live = await _live(settings, stack)
        figurer, factors = figuring.figurer_of(settings, live or carbon.Always())
        presume = partial(presumed, figurer=figurer, unbounded_output_tokens=settings.unbounded_output_tokens)
        figurer.own_cpu = mesh.own_cpu("ledger")
        place = place_of(settings)
        if isinstance(place, Path):
            stack.enter_context(owned(place))
        terms = Terms(_limits(settings), SystemClock(), settings.unbounded_output_tokens)
        writer, reader = await _open(place, settings.synchronous, terms, stack)
        alerts = await _alerts(settings, stack)
        writing = _thread("ledger-writer", stack)
        books = Books(writer, figurer, writing, SystemClock(), settings.orphan_grace_s, alerts.tell)
        retention = Retention(writer, writing, SystemClock(), settings.retention_days)
        checkpoints = stack.enter_context(open_checkpoints(place, writer, writing, _thread("ledger-checkpoints", stack)))
        writer.note_factors(factors, int(SystemClock().now() * 10**9))
        reads = Reads(reader, _thread("ledger-reader", stack))
        books.expect(writer.waiting_routers())
        metrics.OPEN_INTENTS.set(reader.totals()[1])
        ledger_service_pb2_grpc.add_LedgerServiceServicer_to_server(LedgerServicer(books, reads), mesh.registry)
        rates = RateServicer(figurer, _thread("ledger-rates", stack), SystemClock())
        rates_service_pb2_grpc.add_RatesServiceServicer_to_server(rates, mesh.registry)
        keys, revision = _keys(place, settings, presume, books.revoke_leases, stack)
        key_service_pb2_grpc.add_KeyServiceServicer_to_server(KeyServicer(keys), mesh.registry)
        policies = Policies(
            stack.enter_context(open_policies(place, settings.synchronous)), _thread("ledger-policies", stack), SystemClock()
        )
        await policies.load()
        policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(PolicyServicer(policies), mesh.registry)
        reports = Reports(stack.enter_context(open_reports(place, settings.synchronous)), _thread("ledger-reports", stack))
        exports = Exports(stack.enter_context(open_export(place, settings.synchronous)), _thread("ledger-exports", stack))
        budgets = _budgets(place, settings, presume, books.revoke_leases, stack)
        keys_are_demanded = settings.auth_required or settings.gateway_api_key is not None
        rederiving = figurer if live is None else figuring.figurer_of(settings, carbon.Always())[0]
        admin = AdminServicer(reads, reports, exports, keys, budgets, rederiving, settings.admin_api_key, SystemClock(), keys_are_demanded)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, mesh.registry)
        draining = _drain(mesh.draining, books, keys, policies)
        await stack.enter_async_context(
            _running(books.run(), books.watch(), checkpoints.run(), retention.run(), keys.follow(revision), policies.follow(), draining)
        )
        yield


def _limits(settings: LedgerSettings) -> Limits:
    default = default_limits(
        settings.rate_limit_per_minute,
        settings.rate_limit_requests_per_minute,
        settings.default_rate_limit_capacity,
        settings.default_rate_limit_refill_rate,
    )
    return Limits(default, read_tiers(read_config(settings.config)))


async def _alerts(settings: LedgerSettings, stack: AsyncExitStack) -> Alerts:
    """Alerts, being sent from now on if there is an address for them."""
    url = settings.budget_alert_webhook_url
    if url is None:
        return Alerts(None, None)
    alerts = Alerts(url, await stack.enter_async_context(aiohttp.ClientSession()))
    await stack.enter_async_context(_running(alerts.run()))
    return alerts


def _budgets(
    place: Place, settings: LedgerSettings, presume: Presume, changed: Callable[[], Awaitable[None]], stack: AsyncExitStack
) -> BudgetKeeper:
    """The budgets of books that are open. Keys from before there were budgets get theirs."""
    writer, reader = stack.enter_context(open_budgets(place, settings.synchronous, presume))
    writer.adopt_keys(int(SystemClock().now() * 1e9))
    return BudgetKeeper(writer, reader, _thread("ledger-budgets", stack), SystemClock(), changed)


def _keys(
    place: Place, settings: LedgerSettings, presume: Presume, changed: Callable[[], Awaitable[None]], stack: AsyncExitStack
) -> tuple[Keys, int]:
    """The keys of books that are open, and the number of their newest change. Raises SettingsError where nobody could ever present one."""
    writer, viewer, finder = stack.enter_context(open_keys(place, settings.synchronous, presume))
    if settings.auth_required and settings.gateway_api_key is None and settings.admin_api_key is None and not viewer.count():
        raise SettingsError(
            ["AUTH_REQUIRED=true: there is no key that could be presented; set ADMIN_API_KEY to make some, or GATEWAY_API_KEY for just one"]
        )
    threads = KeyThreads(*(_thread(f"ledger-keys-{name}", stack) for name in ("writer", "viewer", "finder")))
    return Keys(writer, viewer, finder, threads, SystemClock(), changed=changed), viewer.revision()


async def _live(settings: LedgerSettings, stack: AsyncExitStack) -> LiveGrids | None:
    """The live source of carbon intensity, asking from now on; None when there is none. Raises SettingsError for one without its key."""
    if settings.carbon_source == "off":
        return None
    try:
        zones = live_grids.zones(settings.carbon_source, settings.carbon_zones)
    except ValueError as error:
        raise SettingsError([f"CARBON_ZONES: {error}"]) from None
    session = await stack.enter_async_context(aiohttp.ClientSession())
    live = LiveGrids(_source(settings, session), zones, SystemClock(), settings.carbon_poll_s)
    await stack.enter_async_context(_running(live.run()))
    return live


def _source(settings: LedgerSettings, session: aiohttp.ClientSession) -> CarbonSource:
    address = settings.carbon_source_url
    match settings.carbon_source:
        case carbon.NATIONAL_GRID:
            return NationalGrid(session, address or NationalGrid.address)
        case carbon.ELECTRICITY_MAPS:
            if settings.electricity_maps_api_key is None:
                raise SettingsError(["CARBON_SOURCE=electricity-maps: ELECTRICITY_MAPS_API_KEY is not set"])
            return ElectricityMaps(session, settings.electricity_maps_api_key, address or ElectricityMaps.address)
    if settings.watttime_username is None or settings.watttime_password is None:
        raise SettingsError(["CARBON_SOURCE=watttime: WATTTIME_USERNAME and WATTTIME_PASSWORD are not both set"])
    return WattTime(session, settings.watttime_username, settings.watttime_password, address or WattTime.address)


async def _open(place: Place, synchronous: str, terms: Terms, stack: AsyncExitStack) -> tuple[Writer, Reader]:
    pauses = iter(() if isinstance(place, Path) else START_PAUSES_S)
    while True:
        try:
            return stack.enter_context(open_books(place, synchronous, terms))
        except OperationalError as error:
            pause = next(pauses, None)
            if pause is None:
                raise unusable(place, error) from error
            log.warning("database_away", cause=cause_of(error))
            await asyncio.sleep(pause)
        except (SQLAlchemyError, migration.BooksError) as error:
            raise unusable(place, error) from error


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


async def _drain(draining: asyncio.Event, *parts: Books | Keys | Policies) -> None:
    await draining.wait()
    for part in parts:
        part.drain()


def main() -> int:
    return app.run("ledger", LedgerSettings, build)


if __name__ == "__main__":
    sys.exit(main())
