"""Reports as AdminService promises them: exactly the sums of the rows, of one moment, on every kind of channel and on both stores."""

import asyncio
import random
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import admin_service_pb2 as pb
from joulegate.ledger.v1 import ledger_service_pb2
from joulegate.ledger.v1.entry_pb2 import Entry, Outcome, TokenCounts
from joulegate.ledger.v1.key_pb2 import ApiKey
from joulegate.ledger.v1.report_pb2 import Grouping, Interval, ReportRow
from services.ledger.engines import Place
from services.ledger.report import FIELDS, Sums
from services.runtime.errors import GatewayError
from tests.contract import test_keys
from tests.contract.channels import KINDS
from tests.contract.test_keys import OPERATOR
from tests.contract.test_ledger import Ledger, Router, started
from tests.unit.ledger.samples import BEGAN, attempt, hit, settlement

PATIENCE_S = 30
METADATA = (("authorization", "Bearer key"),)
ADDED = Sums._fields[3:]
WHOLE_TIME: dict[str, Any] = {"start_time": Timestamp(), "end_time": Timestamp(seconds=4_000_000_000)}
FAILED, FINISHED = Outcome.OUTCOME_FAILED, Outcome.OUTCOME_FINISHED


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def page(ledger: Ledger, **fields: Any) -> pb.GetReportResponse:
    return await ledger.admin.GetReport(pb.GetReportRequest(**fields), metadata=METADATA)


async def report(ledger: Ledger, **fields: Any) -> list[ReportRow]:
    """All pages of a report."""
    rows: list[ReportRow] = []
    token = ""
    while True:
        response = await page(ledger, page_token=token, **fields)
        rows += response.rows
        assert not token or response.next_page_token != token, "the same page comes again"
        token = response.next_page_token
        if not token:
            return rows


async def entries(ledger: Ledger) -> list[Entry]:
    """All rows of the books."""
    rows: list[Entry] = []
    token = ""
    while True:
        response = await ledger.admin.ListEntries(pb.ListEntriesRequest(page_size=1000, page_token=token), metadata=METADATA)
        rows += response.entries
        token = response.next_page_token
        if not token:
            return rows


def random_settlement(draw: random.Random, number: int, key_ids: Sequence[str]) -> ledger_service_pb2.Settlement:
    """Around the ends of hours, days, months and leap years, with figures up to the largest that are booked."""
    edge = datetime(draw.choice([2023, 2024]), draw.choice([1, 2, 3, 12]), draw.choice([1, 28]), tzinfo=UTC).timestamp()
    time = Timestamp(seconds=int(edge) + draw.choice([-86_400, -3600, -1, 0, 1, 86_399, 86_400]), nanos=draw.choice([0, 1, 999_999_999]))
    fields: dict[str, Any] = {"create_time": time, "key_id": draw.choice(key_ids)}
    if draw.random() < 0.3:
        saved = {"saved_cost_nano_usd": draw.randrange(10**15), "saved_energy_microjoules": draw.randrange(10**15)}
        return settlement(f"r{number}", hit(**saved), **fields)
    attempts = []
    for place in range(draw.choice([1, 1, 2, 3])):
        # Providers and models of the clients' own wording, in any script.
        target = {"provider": draw.choice(["openai", "lab", "Ä"]), "model": draw.choice(["gpt-4o", "small", "größe", "z\U0001f600"])}
        big = draw.choice([1000, 10**9])
        names = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
        counts: dict[str, Any] = {name: draw.randrange(big) for name in names}
        tokens = TokenCounts(**counts)
        attempts.append(attempt(place + 1, draw.choice([FAILED, FINISHED]), tokens=tokens, **target))
    return settlement(f"r{number}", *attempts, **fields)


def random_question(draw: random.Random) -> dict[str, Any]:
    begin, end = sorted(draw.sample(range(1_670_000_000, 1_740_000_000), 2))
    asked: dict[str, Any] = {
        "start_time": Timestamp(seconds=begin),
        "end_time": Timestamp(seconds=end),
        "group_by": draw.sample(list(FIELDS), draw.randrange(4)),
        "interval": draw.choice(Interval.values()),
        "page_size": draw.choice([1, 3, 1000]),
    }
    if draw.random() < 0.7:
        asked |= WHOLE_TIME
    return asked | draw.choice([{}, {}, {"provider": "openai"}, {"model": "größe"}, {"key_id": "mark_1"}])


def interval_of(entry: Entry, interval: int) -> int:
    time = entry.create_time.ToDatetime(UTC)
    day = 1 if interval == Interval.INTERVAL_MONTH else time.day
    hour = time.hour if interval == Interval.INTERVAL_HOUR else 0
    return int(datetime(time.year, time.month, day, hour, tzinfo=UTC).timestamp())


def expected(rows: Sequence[Entry], keys: dict[str, ApiKey], asked: dict[str, Any]) -> dict[tuple[Any, ...], Sums]:
    """What a report should say, added up row by row."""
    groups: dict[tuple[Any, ...], list[Entry]] = defaultdict(list)
    if not asked["group_by"] and not asked["interval"]:
        groups[()] = []
    for row in rows:
        if not asked["start_time"].ToNanoseconds() <= row.create_time.ToNanoseconds() < asked["end_time"].ToNanoseconds():
            continue
        if any(getattr(row, name) != asked[name] for name in ("provider", "model", "key_id") if name in asked):
            continue
        named = [interval_of(row, asked["interval"])] if asked["interval"] else []
        for grouping in asked["group_by"]:
            field = FIELDS[grouping]
            named.append(getattr(keys.get(row.key_id, ApiKey()), field) if field in ("team", "organisation") else getattr(row, field))
        groups[tuple(named)].append(row)
    return {name: sums_of(rows) for name, rows in groups.items()}


def sums_of(rows: Sequence[Entry]) -> Sums:
    hits = sum(row.attempt == 0 for row in rows)
    return Sums(len({row.request_id for row in rows}), len(rows) - hits, hits, *(sum(getattr(row, name) for row in rows) for name in ADDED))


def shown(rows: Sequence[ReportRow], asked: dict[str, Any]) -> list[tuple[tuple[Any, ...], Sums]]:
    """Rows as the group that they name and their sums."""
    found = []
    for row in rows:
        assert {field.name for field, _ in row.ListFields()} & set(FIELDS.values()) == {FIELDS[grouping] for grouping in asked["group_by"]}
        assert row.HasField("interval_start_time") == bool(asked["interval"])
        named = [row.interval_start_time.seconds] if asked["interval"] else []
        named += [getattr(row, FIELDS[grouping]) for grouping in asked["group_by"]]
        found.append((tuple(named), Sums(*(getattr(row, name) for name in Sums._fields))))
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_report_is_exactly_the_sum_of_the_rows(place: Place, kind: str, seed: int) -> None:
    draw = random.Random(seed)
    async with started(place, kind) as ledger, Router(ledger) as router:
        keys = {}
        for team, organisation in (("red", "acme"), ("blue", "acme"), ("", "")):
            request = pb.CreateKeyRequest(key=ApiKey(name="robot", team=team, organisation=organisation))
            key = (await ledger.admin.CreateKey(request, metadata=METADATA)).key
            keys[key.key_id] = key
        key_ids = [*keys, "mark_1", ""]
        await router.book(*(random_settlement(draw, number, key_ids) for number in range(80)))
        rows = await entries(ledger)
        for _ in range(20):
            asked = random_question(draw)
            groups = shown(await report(ledger, **asked), asked)
            assert len(groups) == len(dict(groups)), "a group was given twice"
            assert dict(groups) == expected(rows, keys, asked), asked
            # Texts in the order of their bytes, which is that of their characters.
            assert [name for name, _ in groups] == sorted(name for name, _ in groups)


async def test_report_is_about_the_last_thirty_days_when_nothing_is_said(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger, Router(ledger) as router:
        await router.book(settlement("r"))
        counts = []
        for days in (0, 1, 30, 31):
            ledger.clock.time = BEGAN.seconds + days * 86_400
            response = await page(ledger)
            assert response.end_time.seconds - response.start_time.seconds == 30 * 86_400
            counts.append([row.request_count for row in response.rows])
        assert counts == [[0], [1], [1], [0]]
        assert not (await page(ledger, group_by=[Grouping.GROUPING_KEY])).rows


async def test_what_is_booked_while_paging_shifts_nothing_and_is_not_counted(place: Place, kind: str) -> None:
    asked: dict[str, Any] = {"group_by": [Grouping.GROUPING_KEY], "page_size": 2}
    async with started(place, kind) as ledger, Router(ledger) as router:
        await router.book(*(settlement(f"r{number}", key_id=f"k{number}") for number in range(4)))
        ledger.clock.time += 5
        first = await page(ledger, **asked)
        await router.book(*(settlement(f"late{number}", key_id=f"k{number}") for number in range(-1, 6)))
        # The time that nothing was said of stays that of the first page.
        ledger.clock.time += 40 * 86_400
        second = await page(ledger, page_token=first.next_page_token, **asked)
    assert [(row.key_id, row.request_count) for row in (*first.rows, *second.rows)] == [(f"k{number}", 1) for number in range(4)]
    assert not second.next_page_token
    assert (second.start_time, second.end_time) == (first.start_time, first.end_time)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"start_time": Timestamp(seconds=5), "end_time": Timestamp(seconds=5)}, "start_time"),
        ({"start_time": Timestamp(seconds=2_000_000_000)}, "start_time"),
        ({"start_time": Timestamp(seconds=-1)}, "start_time"),
        ({"start_time": Timestamp(nanos=-1)}, "start_time"),
        ({"end_time": Timestamp(seconds=10_000_000_000)}, "end_time"),
        ({"group_by": [Grouping.GROUPING_KEY, 99]}, "group_by"),
        ({"group_by": [Grouping.GROUPING_UNSPECIFIED]}, "group_by"),
        ({"interval": 4}, "interval"),
        ({"provider": "a\0b"}, "provider"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "made-up"}, "page_token"),
    ],
)
async def test_bad_question_is_refused_by_the_name_of_its_field(place: Place, fields: dict[str, Any], param: str) -> None:
    async with started(place, "grpc") as ledger:
        assert await refused(ledger, **fields) == param


async def test_page_token_is_good_for_the_report_that_it_was_given_out_for(place: Place, kind: str) -> None:
    asked: dict[str, Any] = {"group_by": [Grouping.GROUPING_KEY], "page_size": 1, **WHOLE_TIME}
    async with started(place, kind) as ledger, Router(ledger) as router:
        await router.book(settlement("r"), settlement("s", key_id="k2"))
        token = (await page(ledger, **asked)).next_page_token
        assert len((await page(ledger, page_token=token, **asked | {"page_size": 7})).rows) == 1
        for change in ({"provider": "openai"}, {"interval": Interval.INTERVAL_DAY}, {"end_time": Timestamp(seconds=3_000_000_000)}):
            assert await refused(ledger, page_token=token, **asked | change) == "page_token"
        row_token = (await ledger.admin.ListEntries(pb.ListEntriesRequest(page_size=1), metadata=METADATA)).next_page_token
        assert await refused(ledger, page_token=row_token, **asked) == "page_token"


async def test_nobody_else_gets_reports(place: Place, kind: str) -> None:
    async with started(place, kind) as ledger:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ledger.admin.GetReport(pb.GetReportRequest(), metadata=(("authorization", "Bearer ke"),))
    assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def refused(ledger: Ledger, **fields: Any) -> str:
    """The field that is named when this is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await page(ledger, **fields)
    refusal = GatewayError.from_rpc(raised.value)
    assert refusal.reason == ErrorReason.ERROR_REASON_INVALID_REQUEST
    assert refusal.metadata["param"] in refusal.message
    return refusal.metadata["param"]


@contextmanager
def held_reports() -> Iterator[tuple[asyncio.Event, threading.Event]]:
    """Holds each report between its statements: the first event says that one has begun, the second lets it go on."""
    loop, began, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hold(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.current_thread().name.startswith("ledger-reports") and "entries" in statement:
            loop.call_soon_threadsafe(began.set)
            go_on.wait(PATIENCE_S)

    sa.event.listen(sa.Engine, "after_cursor_execute", hold)
    try:
        yield began, go_on
    finally:
        go_on.set()
        sa.event.remove(sa.Engine, "after_cursor_execute", hold)


@asynccontextmanager
async def book_stream(ledger: test_keys.Ledger) -> AsyncIterator[Any]:
    call: Any = ledger.books.Book()
    await call.write(ledger_service_pb2.BookRequest(hello=ledger_service_pb2.Hello(router_id="router")))
    assert (await call.read()).HasField("ready")
    yield call
    call.cancel()


async def test_report_that_takes_long_is_of_one_moment_and_holds_up_neither_commits_nor_reads(place: Place, kind: str) -> None:
    async with test_keys.started(place, kind) as ledger, book_stream(ledger) as call:

        async def book(*ids: str) -> None:
            await call.write(ledger_service_pb2.BookRequest(settlements=[settlement(request_id) for request_id in ids]))
            assert len((await asyncio.wait_for(call.read(), PATIENCE_S)).settlement_acks) == len(ids)

        await book("before", "as well")
        with held_reports() as (began, go_on):
            asked = pb.GetReportRequest(group_by=[Grouping.GROUPING_PROVIDER], **WHOLE_TIME)
            running = asyncio.ensure_future(ledger.admin.GetReport(asked, metadata=OPERATOR))
            await asyncio.wait_for(began.wait(), PATIENCE_S)
            await book("during")
            listed = ledger.admin.ListEntries(pb.ListEntriesRequest(), metadata=OPERATOR)
            assert len((await asyncio.wait_for(listed, PATIENCE_S)).entries) == 3
            assert (await ledger.books.GetTotals(ledger_service_pb2.GetTotalsRequest())).totals.request_count == 3
            assert not running.done()
            go_on.set()
            (row,) = (await running).rows
        assert (row.request_count, row.output_tokens) == (2, 80)
        (row,) = (await ledger.admin.GetReport(asked, metadata=OPERATOR)).rows
        assert row.request_count == 3


async def test_rows_are_compared_with_what_they_come_to_now(kind: str, place: Place) -> None:
    async with started(place, kind) as ledger, Router(ledger) as router:
        dear = attempt(1, provider="lab", model="nobody-knows")
        await router.book(settlement("a"), settlement("b", dear), settlement("c", attempt(1, reported_cost_nano_usd=7)))
        request = pb.GetRederivedReportRequest(**WHOLE_TIME)
        same = (await ledger.admin.GetRederivedReport(request, metadata=METADATA)).rows
        assert [(row.provider, row.model, row.row_count) for row in same] == [("lab", "nobody-knows", 1), ("openai", "gpt-4o", 2)]
        assert all(row.booked == row.now and row.booked.cost_nano_usd > 0 < row.booked.carbon_micrograms for row in same)
        [sums] = await report(ledger, **WHOLE_TIME)
        assert sum(row.booked.energy_microjoules for row in same) == sums.energy_microjoules
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ledger.admin.GetRederivedReport(request)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as wrong:
            await ledger.admin.GetRederivedReport(pb.GetRederivedReportRequest(end_time=Timestamp(seconds=-1)), metadata=METADATA)
        assert wrong.value.code() == grpc.StatusCode.INVALID_ARGUMENT
