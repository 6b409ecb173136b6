"""Ledgers that die at any moment, alone or beside another one on the same books: every acknowledged record is there exactly once."""

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1 import ledger_service_pb2_grpc
from joulegate.ledger.v1.entry_pb2 import Outcome
from services.ledger.booking import sum_of
from services.ledger.engines import Place, open_engine
from services.ledger.records import Row
from services.ledger.schema import entries, totals
from services.ledger.store import Reader, open_books
from tests import postgresql
from tests.postgresql import variables_of
from tests.unit.ledger.samples import attempt, intent, settlement

PATIENCE_S = 30
# After so long a router tries the next ledger.
LEDGER_START_S = 5


@asynccontextmanager
async def ledger_process(place: Place, address: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The real ledger in a process of its own, on these books."""
    environment = {**os.environ, **variables_of(place), **variables, "GRPC_LISTEN": address, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.ledger",
        env=environment,
        cwd=Path(address.removeprefix("unix:")).parent,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


def batches(records: list[pb.Intent | pb.Settlement], chance: random.Random) -> Iterator[pb.BookRequest]:
    while records:
        batch, records = records[: (size := chance.randint(1, 12))], records[size:]
        yield pb.BookRequest(
            intents=[record for record in batch if isinstance(record, pb.Intent)],
            settlements=[record for record in batch if isinstance(record, pb.Settlement)],
        )


@dataclass
class Router:
    """A router that books its requests, at whichever of its ledgers it reaches, until all are acknowledged."""

    name: str
    addresses: list[str]
    settlements: Mapping[str, pb.Settlement]
    acknowledged: dict[str, int] = field(default_factory=dict)
    connections: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.name)

    async def run(self) -> None:
        """Books everything; after a break at the next ledger, with what was not acknowledged and some of what was."""
        async with asyncio.timeout(PATIENCE_S * 2):
            while self.acknowledged.keys() != self.settlements.keys():
                address = self.addresses[self.connections % len(self.addresses)]
                self.connections += 1
                # The last: the stream had ended when more was to be written to it.
                with suppress(grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError):
                    await self.connect(address)

    async def connect(self, address: str) -> None:
        """Books at one ledger what is left, up to the end or the break of the stream."""
        left = [each for name, each in self.settlements.items() if name not in self.acknowledged or self._chance.random() < 0.1]
        records: list[pb.Intent | pb.Settlement] = [record for each in left for record in (intent(each.request_id), each)]
        requests = batches(records, self._chance)
        async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            await asyncio.wait_for(channel.channel_ready(), LEDGER_START_S)
            call: Any = ledger_service_pb2_grpc.LedgerServiceStub(channel).Book(timeout=PATIENCE_S)
            await call.write(pb.BookRequest(hello=pb.Hello(router_id=self.name)))
            assert (await call.read()).HasField("ready")
            while self.acknowledged.keys() != self.settlements.keys():
                for _, request in zip(range(self._chance.randint(1, 8)), requests, strict=False):
                    await call.write(request)
                response = await call.read()
                assert response is not grpc.aio.EOF
                for ack in response.settlement_acks:
                    # Whoever acknowledges it, and however often, says the same.
                    assert self.acknowledged.setdefault(ack.request_id, ack.cost_nano_usd) == ack.cost_nano_usd


def check_books(place: Place, acknowledged: Mapping[str, int]) -> list[Row]:
    """Every acknowledged settlement is there, once, with both its attempts and the cost that was acknowledged; the sums agree."""
    engine = open_engine(place, "full", read_only=True)
    rows = [row for _, row in Reader(engine).entries(100_000)]
    sums, _ = Reader(engine).totals()
    engine.dispose()
    keys = Counter((row.request_id, row.attempt) for row in rows)
    assert set(keys.values()) == {1}
    assert {(name, number) for name in acknowledged for number in (1, 2)} <= keys.keys()
    assert sum_of(rows) == sums
    costs: Counter[str] = Counter()
    for row in rows:
        costs[row.request_id] += row.cost_nano_usd
    assert {name: costs[name] for name in acknowledged} == acknowledged
    return rows


async def until(router: Router, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(router.acknowledged) < count:
            await asyncio.sleep(0.002)


def requests(count: int, first: int = 0) -> dict[str, pb.Settlement]:
    return {f"r{number}": settlement(f"r{number}", attempt(1), attempt(2)) for number in range(first, first + count)}


async def test_ledger_killed_at_any_moment_has_every_acknowledged_record_exactly_once(place: Place, tmp_path: Path) -> None:
    chance = random.Random(20)
    address = f"unix:{tmp_path / 'l.sock'}"
    router = Router("router", [address], requests(600))
    booking = asyncio.create_task(router.run())
    for _ in range(3):
        async with ledger_process(place, address) as process:
            left = len(router.settlements) - len(router.acknowledged)
            await until(router, len(router.acknowledged) + chance.randint(1, left // 2))
            process.send_signal(signal.SIGKILL)
            await process.wait()
        check_books(place, dict(router.acknowledged))
    async with ledger_process(place, address):
        await booking
    assert len(check_books(place, router.acknowledged)) == 1200
    assert router.connections >= 4


async def watch_sums(place: Place, seen: list[int]) -> None:
    """Compares the kept sums with those of the rows, in one statement and so at one moment, again and again."""
    compared = ("cost_nano_usd", "energy_microjoules", "output_tokens")
    rows_of = [sa.select(sa.func.coalesce(sa.func.sum(entries.c[name]), 0)).scalar_subquery() for name in compared]
    kept_of = [sa.select(sa.func.sum(totals.c[name])).scalar_subquery() for name in compared]
    counts = [
        sa.select(sa.func.count()).select_from(entries).scalar_subquery(),
        sa.select(sa.func.sum(totals.c.entry_count)).scalar_subquery(),
    ]
    engine = open_engine(place, "full", read_only=True)
    try:
        while True:
            with engine.connect() as connection:
                count, kept_count, *sums = connection.execute(sa.select(*counts, *rows_of, *kept_of)).one()
            assert (count, sums[:3]) == (kept_count, sums[3:])
            seen.append(int(count))
            await asyncio.sleep(0.02)
    finally:
        engine.dispose()


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_two_ledgers_on_the_same_books_lose_nothing_and_book_nothing_twice(place: Place, tmp_path: Path) -> None:
    one, two = (f"unix:{tmp_path / name}" for name in ("one.sock", "two.sock"))
    grace = {"LEDGER_ORPHAN_GRACE_SECONDS": "1"}
    # Neighbours share half of their requests, and send them to different ledgers at the same time.
    routers = [Router(f"router-{number}", [one, two][:: 1 if number % 2 else -1], requests(1200, 600 * number)) for number in range(4)]
    seen: list[int] = []
    async with AsyncExitStack() as stack:
        # Both make the tables, or wait for the other to.
        await stack.enter_async_context(ledger_process(place, one, **grace))
        doomed = await stack.enter_async_context(ledger_process(place, two, **grace))
        booking = [asyncio.create_task(router.run()) for router in routers]
        await until(routers[0], 1)
        watching = asyncio.create_task(watch_sums(place, seen))
        await leave_open(two, [f"lost-{number}" for number in range(50)])
        await until(routers[0], 200)
        doomed.send_signal(signal.SIGKILL)
        await doomed.wait()
        await asyncio.gather(*booking)
        await becomes_settled(one, place)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    acknowledged = {name: cost for router in routers for name, cost in router.acknowledged.items()}
    rows = check_books(place, acknowledged)
    assert {row.request_id for row in rows if row.is_lost} == {f"lost-{number}" for number in range(50)}
    assert len(rows) == 2 * len(acknowledged) + 50 == 2 * 3000 + 50
    assert max(router.connections for router in routers) > 1
    assert len(set(seen)) > 10


async def leave_open(address: str, names: list[str]) -> None:
    """A router that says what it is about to do, and is never heard of again."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = ledger_service_pb2_grpc.LedgerServiceStub(channel).Book(wait_for_ready=True)
        await call.write(pb.BookRequest(hello=pb.Hello(router_id="dead"), intents=[intent(name) for name in names]))
        await call.read()
        assert len((await call.read()).intent_acks) == len(names)
        call.cancel()


async def becomes_settled(address: str, place: Place) -> None:
    """Waits until the ledger that lives has given up the requests of the dead router."""
    async with asyncio.timeout(PATIENCE_S), grpc.aio.insecure_channel(address) as channel:
        stub = ledger_service_pb2_grpc.LedgerServiceStub(channel)
        while (await stub.GetTotals(pb.GetTotalsRequest())).totals.open_intent_count:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_router_of_one_ledger_is_not_given_up_by_another(place: sa.URL, tmp_path: Path) -> None:
    one, two = (f"unix:{tmp_path / name}" for name in ("one.sock", "two.sock"))
    grace = {"LEDGER_ORPHAN_GRACE_SECONDS": "0.5"}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(ledger_process(place, one, **grace))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(one))
        call: Any = ledger_service_pb2_grpc.LedgerServiceStub(channel).Book(wait_for_ready=True)
        await call.write(pb.BookRequest(hello=pb.Hello(router_id="alive"), intents=[intent("held")]))
        await call.read()
        await call.read()
        # Starts with a router that it does not know, and gives up another one in the end.
        await stack.enter_async_context(ledger_process(place, two, **grace))
        await leave_open(two, ["lost"])
        with open_books(place, "full") as (writer, reader):
            async with asyncio.timeout(PATIENCE_S):
                while "dead" in writer.waiting_routers():
                    await asyncio.sleep(0.05)
            # Several grace periods of a router that is away.
            await asyncio.sleep(2)
            assert writer.waiting_routers() == {"alive": 1}
            assert [(row.request_id, row.outcome) for _, row in reader.entries(10)] == [("lost", Outcome.OUTCOME_LOST)]


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_server_that_crashes_and_comes_back_costs_no_record(
    place: sa.URL, postgresql_server: postgresql.Server, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path / 'l.sock'}"
    router = Router("router", [address], requests(800))
    async with ledger_process(place, address) as process:
        booking = asyncio.create_task(router.run())
        for share in (100, 300):
            await until(router, share)
            await asyncio.to_thread(postgresql_server.stop, signal.SIGQUIT)
            # What is acknowledged from here on was committed before, or check_books() misses it: the router does not repeat it.
            await asyncio.sleep(0.2)
            await asyncio.to_thread(postgresql_server.start)
        await booking
        assert process.returncode is None
    assert len(check_books(place, router.acknowledged)) == 1600
