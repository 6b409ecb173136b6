"""The ledger's contract: what is acknowledged is booked, once, whatever breaks. On every kind of channel."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.chat.v1.receipt_pb2 import CostBasis, EnergyBasis
from joulegate.ledger.v1 import admin_service_pb2, admin_service_pb2_grpc, ledger_service_pb2_grpc
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1.entry_pb2 import Entry, Outcome, TokenCounts
from services.ledger.__main__ import build
from services.ledger.admin import AdminServicer
from services.ledger.books import Books
from services.ledger.budget_changes import open_budgets
from services.ledger.budget_keeper import BudgetKeeper
from services.ledger.engines import Place, open_engine
from services.ledger.export_store import ExportReader
from services.ledger.figures import Figurer
from services.ledger.key_store import open_keys
from services.ledger.keys import Keys, KeyThreads
from services.ledger.limits import Limits
from services.ledger.reads import Exports, Reads, Reports
from services.ledger.report_store import ReportReader
from services.ledger.reserving import presumed
from services.ledger.servicer import LedgerServicer
from services.ledger.settings import LedgerSettings
from services.ledger.store import Reader, Terms, Writer
from services.runtime.errors import GatewayError
from services.runtime.settings import SettingsError, load
from tests.contract.channels import KINDS, new_mesh, serve
from tests.postgresql import variables_of
from tests.unit.ledger.samples import BEGAN, LATER, HeldClock, attempt, hit, intent, new_figurer, settlement

PATIENCE_S = 30


@dataclass
class Ledger:
    """A ledger under test: its channel from outside, and what a test turns by hand."""

    channel: grpc.aio.Channel
    books: Books
    clock: HeldClock
    writer_engine: Any
    figurer: Figurer

    def __post_init__(self) -> None:
        self.stub = ledger_service_pb2_grpc.LedgerServiceStub(self.channel)
        self.admin = admin_service_pb2_grpc.AdminServiceStub(self.channel)

    async def entries(self, **fields: Any) -> list[Entry]:
        request = admin_service_pb2.ListEntriesRequest(**fields)
        return list((await self.admin.ListEntries(request, metadata=(("authorization", "Bearer key"),))).entries)

    async def totals(self) -> pb.Totals:
        return (await self.stub.GetTotals(pb.GetTotalsRequest())).totals


@asynccontextmanager
async def started(place: Place, kind: str, admin_key: str | None = "key", limits: Limits | None = None) -> AsyncIterator[Ledger]:
    """The ledger as its composition root builds it, but with a clock and a writer's engine in the test's hands."""
    mesh, clock = new_mesh(), HeldClock()
    writing, reading = open_engine(place, "full"), open_engine(place, "full", read_only=True)
    writer = Writer(writing, Terms(limits or Limits(), clock))
    writer.create()
    figurer = new_figurer()
    presume = partial(presumed, figurer=figurer, unbounded_output_tokens=Terms().unbounded_output_tokens)
    with (
        open_keys(place, "full", presume) as key_stores,
        open_budgets(place, "full", presume) as budget_stores,
        ThreadPoolExecutor(1) as writer_thread,
        ThreadPoolExecutor(1) as reader_thread,
    ):
        books = Books(writer, figurer, writer_thread, clock, orphan_grace_s=10)
        books.expect(writer.waiting_routers())
        reads = Reads(Reader(reading), reader_thread)
        reports = Reports(ReportReader(reading), reader_thread)
        keys = Keys(*key_stores, KeyThreads(*[reader_thread] * 3), clock, changed=books.revoke_leases)
        ledger_service_pb2_grpc.add_LedgerServiceServicer_to_server(LedgerServicer(books, reads), mesh.registry)
        exports = Exports(ExportReader(reading), reader_thread)
        budgets = BudgetKeeper(*budget_stores, reader_thread, clock, books.revoke_leases)
        admin = AdminServicer(reads, reports, exports, keys, budgets, figurer, admin_key, clock)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, mesh.registry)
        running = asyncio.create_task(books.run())
        async with serve(mesh, kind) as channel:
            yield Ledger(channel, books, clock, writing, figurer)
        running.cancel()
        await asyncio.wait([running])
    writing.dispose()
    reading.dispose()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Router:
    """A router's end of a Book call."""

    def __init__(self, ledger: Ledger, router_id: str = "router") -> None:
        self._call: Any = ledger.stub.Book()
        self._router_id = router_id

    async def __aenter__(self) -> "Router":
        await self.send(hello=pb.Hello(router_id=self._router_id))
        assert (await self.receive()).HasField("ready")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()

    async def send(self, **fields: Any) -> None:
        await self._call.write(pb.BookRequest(**fields))

    async def receive(self) -> pb.BookResponse:
        response = await asyncio.wait_for(self._call.read(), PATIENCE_S)
        assert isinstance(response, pb.BookResponse), "the stream ended"
        return response

    async def book(self, *records: pb.Intent | pb.Settlement) -> pb.BookResponse:
        """Sends records in one message and gives their acknowledgements."""
        await self.send(
            intents=[record for record in records if isinstance(record, pb.Intent)],
            settlements=[record for record in records if isinstance(record, pb.Settlement)],
        )
        return await self.receive()

    async def done(self) -> None:
        await self._call.done_writing()

    async def end(self) -> grpc.aio.AioRpcError | None:
        """Reads to the end; the error that the stream ended with."""
        try:
            while await asyncio.wait_for(self._call.read(), PATIENCE_S) is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return error
        return None


async def test_acknowledged_settlement_is_booked_with_the_figures_of_its_acknowledgement(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger, Router(ledger) as router:
        opened = await router.book(intent("r"))
        assert [ack.request_id for ack in opened.intent_acks] == ["r"]
        assert (await ledger.totals()).open_intent_count == 1
        [ack] = (await router.book(settlement("r"))).settlement_acks
        [row] = await ledger.entries()
        totals = await ledger.totals()
    assert ack.cost_nano_usd == row.cost_nano_usd == 100 * 2500 + 40 * 10_000
    assert ack.cost_basis == CostBasis.COST_BASIS_LIST
    assert ack.energy.basis == EnergyBasis.ENERGY_BASIS_MODELLED
    assert 0 < ack.energy.low_microjoules < ack.energy.microjoules == row.energy_microjoules < ack.energy.high_microjoules
    assert (totals.open_intent_count, totals.request_count, totals.entry_count) == (0, 1, 1)
    assert totals.energy_microjoules == row.energy_microjoules


async def test_cache_hit_needs_no_intent_and_costs_nothing(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger, Router(ledger) as router:
        [ack] = (await router.book(settlement("r", hit()))).settlement_acks
        totals = await ledger.totals()
    assert (ack.cost_nano_usd, ack.cost_basis, ack.energy.microjoules) == (0, CostBasis.COST_BASIS_FREE, 7071)
    assert (totals.cache_hit_count, totals.saved_cost_nano_usd, totals.saved_energy_microjoules) == (1, 650_000, 90_000_000 - 7071)


async def test_intent_and_settlement_may_come_together_and_with_the_hello(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger, Router(ledger) as router:
        both = await router.book(intent("r"), settlement("r"))
        assert (len(both.intent_acks), len(both.settlement_acks)) == (1, 1)
        assert (await ledger.totals()).open_intent_count == 0
        early: Any = ledger.stub.Book()
        await early.write(pb.BookRequest(hello=pb.Hello(router_id="early"), intents=[intent("e")]))
        assert (await early.read()).HasField("ready")
        assert (await early.read()).intent_acks[0].request_id == "e"
        early.cancel()


async def test_records_repeated_after_a_break_are_acknowledged_again_and_booked_once(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger:
        async with Router(ledger) as router:
            before = await router.book(intent("r"), settlement("r"))
        async with Router(ledger) as router:
            after = await router.book(intent("r"), settlement("r", attempt(1, tokens=TokenCounts(output_tokens=999))))
        assert after == before
        assert len(await ledger.entries()) == 1
        assert (await ledger.totals()).open_intent_count == 0


async def test_requests_that_came_with_one_id_are_each_booked_and_acknowledged_by_it(place: Place, kind: str) -> None:
    second = settlement("r", attempt(tokens=TokenCounts(output_tokens=7)), create_time=LATER)
    async with started(place, kind) as ledger, Router(ledger, "one") as one, Router(ledger, "two") as two:
        await one.book(intent("r"))
        assert [ack.request_id for ack in (await two.book(intent("r", create_time=LATER))).intent_acks] == ["r"]
        assert (await ledger.totals()).open_intent_count == 2
        [first_ack] = (await one.book(settlement("r"))).settlement_acks
        [second_ack] = (await two.book(second)).settlement_acks
        assert (await ledger.totals()).open_intent_count == 0
    # Whoever repeats them, in any order, after a restart.
    async with started(place, kind) as ledger, Router(ledger, "three") as router:
        assert list((await router.book(second, settlement("r"), intent("r", create_time=LATER))).settlement_acks) == [second_ack, first_ack]
        rows = await ledger.entries(request_id="r")
        assert (await ledger.totals()).request_count == len(rows) == 2
    assert [ack.request_id for ack in (first_ack, second_ack)] == ["r", "r"]
    assert [(row.create_time, row.cost_nano_usd) for row in rows] == [(LATER, second_ack.cost_nano_usd), (BEGAN, first_ack.cost_nano_usd)]
    assert [row.request_id for row in rows] == ["r~cwyvpelgpse9", "r"]


async def test_stream_without_a_hello_is_refused(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger:
        for first in (pb.BookRequest(intents=[intent("r")]), pb.BookRequest(hello=pb.Hello())):
            call: Any = ledger.stub.Book()
            await call.write(first)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_newer_stream_of_a_router_ends_the_older_with_aborted(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger, Router(ledger) as older, Router(ledger, "other") as bystander, Router(ledger) as newer:
        error = await older.end()
        assert error is not None
        assert error.code() == grpc.StatusCode.ABORTED
        assert (await newer.book(intent("r"))).intent_acks
        assert (await bystander.book(intent("s"))).intent_acks


async def test_bad_record_fails_its_stream_by_name_and_touches_no_other(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger, Router(ledger, "good") as good, Router(ledger, "bad") as bad:
        await bad.book(settlement("before"))
        await bad.send(settlements=[settlement("beside"), settlement("poison", attempt(tokens=TokenCounts(output_tokens=-1)))])
        error = await bad.end()
        assert error is not None
        refusal = GatewayError.from_rpc(error)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.metadata["request_id"] == "poison"
        assert refusal.metadata["param"] == "settlements[1].attempts[0].tokens.output_tokens"
        assert (await good.book(settlement("after"))).settlement_acks
        assert [row.request_id for row in await ledger.entries()] == ["after", "before"]


async def test_full_disk_acknowledges_nothing_and_passes_when_there_is_room(tmp_path: Path, kind: str) -> None:
    def allow_pages(count: int) -> None:
        with ledger.writer_engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count={count}")

    async with started(tmp_path / "ledger.db", kind) as ledger:
        async with Router(ledger) as router:
            await router.book(settlement("before"))
            allow_pages(1)  # SQLite makes this the present size
            many = [settlement(f"full-{number}", key_id="k" * 500) for number in range(200)]
            await router.send(settlements=many)
            error = await router.end()
            assert error is not None
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            assert GatewayError.from_rpc(error).reason == ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE
            assert (await ledger.totals()).entry_count == 1
        allow_pages(1_000_000)
        async with Router(ledger) as router:
            assert len((await router.book(*many)).settlement_acks) == 200
        assert (await ledger.totals()).entry_count == 201


async def test_stream_that_is_done_writing_is_answered_and_ends_well(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger, Router(ledger) as router:
        await router.send(intents=[intent("r")])
        await router.done()
        assert (await router.receive()).intent_acks
        assert await router.end() is None


async def test_draining_answers_what_was_sent_ends_the_streams_and_opens_no_more(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger, Router(ledger) as router:
        await router.book(intent("r"))
        ledger.books.drain()
        assert await router.end() is None
        late = Router(ledger, "late")
        await late.send(hello=pb.Hello(router_id="late"))
        error = await late.end()
        assert error is not None
        assert error.code() == grpc.StatusCode.UNAVAILABLE


async def test_requests_of_a_router_that_stays_away_are_booked_as_lost(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger:
        async with Router(ledger, "dead") as dead, Router(ledger, "alive") as alive:
            await dead.book(intent("lost", max_output_tokens=50), intent("done"), settlement("done"))
            await alive.book(intent("held"))
            await dead.done()
            assert await dead.end() is None
            ledger.clock.time += 9.9
            await ledger.books.sweep()
            await alive.book(intent("after-sweep"))
            assert (await ledger.totals()).open_intent_count == 3
            ledger.clock.time += 0.2
            await ledger.books.sweep()
            await alive.book(intent("after-loss"))
            assert (await ledger.totals()).open_intent_count == 3
        lost, done = await ledger.entries()
        assert (lost.request_id, lost.outcome, done.outcome) == ("lost", Outcome.OUTCOME_LOST, Outcome.OUTCOME_FINISHED)
        assert (lost.input_tokens, lost.output_tokens, lost.tokens_estimated) == (100, 50, True)
        assert lost.cost_nano_usd == 100 * 2500 + 50 * 10_000


async def test_router_that_comes_back_in_time_keeps_its_requests(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger:
        async with Router(ledger) as router:
            await router.book(intent("r"))
            await router.done()
            await router.end()
        ledger.clock.time += 9
        async with Router(ledger) as router:
            ledger.clock.time += 60
            await ledger.books.sweep()
            await router.book(intent("after-sweep"))
            assert (await ledger.totals()).open_intent_count == 2
            await router.book(settlement("r"))
            assert [row.outcome for row in await ledger.entries()] == [Outcome.OUTCOME_FINISHED]


async def test_requests_from_before_a_restart_are_lost_unless_their_router_returns(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger, Router(ledger, "dead") as dead, Router(ledger, "back") as back:
        await dead.book(intent("lost"))
        await back.book(intent("kept"))
    async with started(place, kind) as ledger, Router(ledger, "back") as back:
        ledger.clock.time += 10
        await ledger.books.sweep()
        await back.book(settlement("kept"))
        outcomes = {row.request_id: row.outcome for row in await ledger.entries()}
        assert outcomes == {"kept": Outcome.OUTCOME_FINISHED, "lost": Outcome.OUTCOME_LOST}
        # The router was only slow: what it says in the end is what counts.
        async with Router(ledger, "dead") as late:
            [ack] = (await late.book(settlement("lost"))).settlement_acks
        rows = await ledger.entries(request_id="lost")
        assert [(row.outcome, row.cost_nano_usd) for row in rows] == [(Outcome.OUTCOME_FINISHED, ack.cost_nano_usd)]
        assert (await ledger.totals()).entry_count == 2


async def test_lost_request_gives_way_to_its_own_settlement_and_to_no_other_of_its_id(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger:
        async with Router(ledger, "dead") as dead:
            await dead.book(intent("r"))
            await dead.done()
            await dead.end()
        ledger.clock.time += 10
        await ledger.books.sweep()
        async with Router(ledger, "other") as other:
            await other.book(settlement("r", create_time=LATER))
        outcomes = [row.outcome for row in await ledger.entries(request_id="r")]
        assert outcomes == [Outcome.OUTCOME_FINISHED, Outcome.OUTCOME_LOST]
        async with Router(ledger, "dead") as late:
            await late.book(settlement("r", attempt(outcome=Outcome.OUTCOME_CLIENT_LEFT)))
        rows = await ledger.entries(request_id="r")
        assert [(row.create_time, row.outcome) for row in rows] == [
            (BEGAN, Outcome.OUTCOME_CLIENT_LEFT),
            (LATER, Outcome.OUTCOME_FINISHED),
        ]


async def test_operators_read_the_rows_page_by_page(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger, Router(ledger) as router:
        await router.book(*(settlement(f"r{number}") for number in range(5)))
        seen, token = [], ""
        while True:
            request = admin_service_pb2.ListEntriesRequest(page_size=2, page_token=token)
            page = await ledger.admin.ListEntries(request, metadata=(("authorization", "bearer key"),))
            seen += [row.request_id for row in page.entries]
            token = page.next_page_token
            if not token:
                break
            await router.book(settlement(f"new-{len(seen)}"))
        assert seen == ["r4", "r3", "r2", "r1", "r0"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ledger.entries(page_token="AAAA")
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_operators_take_the_rows_as_a_file(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger, Router(ledger) as router:
        await router.book(*(settlement(f"r{number}") for number in range(5)))
        key = (("authorization", "bearer key"),)
        call = ledger.admin.ExportEntries(admin_service_pb2.ExportEntriesRequest(format="csv", start_time=BEGAN), metadata=key)
        pieces = [piece async for piece in call]
        assert pieces[0].content_type == "text/csv; charset=utf-8"
        lines = b"".join(piece.data for piece in pieces).decode().splitlines()
        assert [line.partition(",")[0] for line in lines] == ["request_id", "r0", "r1", "r2", "r3", "r4"]
        for wrong, metadata, code in (
            ({"format": "xls"}, key, grpc.StatusCode.INVALID_ARGUMENT),
            ({"start_time": {"nanos": -1}}, key, grpc.StatusCode.INVALID_ARGUMENT),
            ({}, (), grpc.StatusCode.UNAUTHENTICATED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ledger.admin.ExportEntries(admin_service_pb2.ExportEntriesRequest(**wrong), metadata=metadata).read()
            assert caught.value.code() == code


@pytest.mark.parametrize(
    ("admin_key", "authorization", "code"),
    [
        (None, "Bearer key", grpc.StatusCode.PERMISSION_DENIED),
        ("key", None, grpc.StatusCode.UNAUTHENTICATED),
        ("key", "Bearer ke", grpc.StatusCode.UNAUTHENTICATED),
        ("key", "Basic key", grpc.StatusCode.UNAUTHENTICATED),
        ("key", "Bearer ", grpc.StatusCode.UNAUTHENTICATED),
    ],
)
async def test_nobody_else_reads_the_rows(
    place: Place, kind: str, admin_key: str | None, authorization: str | None, code: grpc.StatusCode
) -> None:
    async with started(place, kind, admin_key) as ledger:
        metadata = () if authorization is None else (("authorization", authorization),)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ledger.admin.ListEntries(admin_service_pb2.ListEntriesRequest(), metadata=metadata)
        assert caught.value.code() == code


def settings_for(tmp_path: Path, **variables: str) -> LedgerSettings:
    return load(LedgerSettings, {"JOULEGATE_DATA_DIR": str(tmp_path / "data"), **variables})


async def test_composition_root_serves_drains_and_leaves_the_books_to_the_next(place: Place, tmp_path: Path) -> None:
    for _ in range(2):
        mesh = new_mesh()
        async with build(settings_for(tmp_path, **variables_of(place)), mesh), serve(mesh, "local") as channel:
            router: Any = ledger_service_pb2_grpc.LedgerServiceStub(channel).Book()
            await router.write(pb.BookRequest(hello=pb.Hello(router_id="r"), settlements=[settlement("once")]))
            assert (await router.read()).HasField("ready")
            assert len((await router.read()).settlement_acks) == 1
            mesh.draining.set()
            assert await asyncio.wait_for(router.read(), PATIENCE_S) is grpc.aio.EOF
            totals = await ledger_service_pb2_grpc.LedgerServiceStub(channel).GetTotals(pb.GetTotalsRequest())
            assert totals.totals.entry_count == 1


async def test_file_with_damaged_pages_stops_the_start_by_name_and_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with started(path, "local") as ledger, Router(ledger) as router:
        await router.book(*(settlement(f"r{number}") for number in range(500)))
    whole = path.read_bytes()
    # All but the first page, which says what there is.
    damaged = whole[:4096] + bytes(range(256)) * ((len(whole) - 4096) // 256)
    path.write_bytes(damaged)
    with pytest.raises(SettingsError, match=r"LEDGER_DB_PATH=.*malformed"):
        async with build(settings_for(tmp_path, LEDGER_DB_PATH=str(path)), new_mesh()):
            pass
    assert path.read_bytes() == damaged


async def test_second_ledger_on_the_same_file_fails_at_start(tmp_path: Path) -> None:
    async with build(settings_for(tmp_path), new_mesh()):
        with pytest.raises(SettingsError, match="another ledger"):
            async with build(settings_for(tmp_path), new_mesh()):
                pass


async def test_file_that_is_no_database_and_zone_that_is_no_place_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("this is not a database, and long enough to be read as the header of one" * 20)
    config = tmp_path / "joulegate.toml"
    config.write_text('[providers.lab]\nzone = "nowhere"\n')
    for wrong in ({"LEDGER_DB_PATH": str(tmp_path / "no.db")}, {"JOULEGATE_CONFIG": str(config)}):
        with pytest.raises(SettingsError):
            async with build(settings_for(tmp_path, **wrong), new_mesh()):
                pass
