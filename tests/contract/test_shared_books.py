"""What only a server's books have: writers beside each other, a server that is away, and one that was never there."""

import asyncio
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1.entry_pb2 import Outcome
from services.ledger import __main__ as ledger_process
from services.ledger import books as books_module
from services.ledger.__main__ import build
from services.ledger.booking import Batch, Changes, decide, sum_of
from services.ledger.engines import open_engine, server_url
from services.ledger.store import LOCK_SLOTS, Reader, Writer
from services.runtime.errors import GatewayError
from services.runtime.settings import SettingsError
from tests import postgresql
from tests.contract.channels import new_mesh
from tests.contract.test_ledger import PATIENCE_S, Router, settings_for, started
from tests.postgresql import variables_of
from tests.unit.ledger.samples import LATER, attempt, batch_of, hit, intent, new_figurer, settlement
from tests.unit.ledger.test_store import commit, outcomes

FIGURER = new_figurer()
pytestmark = pytest.mark.parametrize("place", ["postgresql"], indirect=True)


class Pair:
    """Two writers on the same books, the second on a thread of its own."""

    def __init__(self, place: sa.URL) -> None:
        self.engines = [open_engine(place, "full") for _ in range(3)]
        self.first, self.second = Writer(self.engines[0]), Writer(self.engines[1])
        self.first.create()
        self.reader = Reader(self.engines[2])
        self.thread = ThreadPoolExecutor(1)

    def second_commits(self, *records: Any, **more: Any) -> "Future[Changes]":
        return self.thread.submit(commit, self.second, *records, **more)

    def wait_for_the_queue(self) -> None:
        """Until the second waits for what the first has locked."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with self.engines[2].connect() as connection:
                if connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'").scalar():
                    return
        raise AssertionError("nobody waits")


@pytest.fixture
def pair(place: sa.URL) -> Iterator[Pair]:
    both = Pair(place)
    yield both
    both.thread.shutdown()
    for engine in both.engines:
        engine.dispose()


def test_record_that_reaches_two_ledgers_at_once_is_booked_by_one_and_acknowledged_alike_by_both(pair: Pair) -> None:
    batch = batch_of(settlement("r", attempt(1), attempt(2)))
    with pair.first.transaction() as transaction:
        changes = decide(batch, transaction.known(batch), FIGURER)
        # With other attempts, so that no key of a row would meet.
        other = pair.second_commits(settlement("r", attempt(3, model="gpt-4o-mini")))
        pair.wait_for_the_queue()
        transaction.apply(changes)
    assert other.result(PATIENCE_S).acknowledgements == changes.acknowledgements
    assert len(other.result().rows) == 0
    assert outcomes(pair.reader) == [("r", Outcome.OUTCOME_FINISHED)] * 2
    assert pair.reader.totals()[0] == sum_of(row for _, row in pair.reader.entries(10))


def test_two_requests_of_one_id_that_reach_two_ledgers_at_once_are_both_booked(pair: Pair) -> None:
    batch = batch_of(settlement("r"))
    with pair.first.transaction() as transaction:
        transaction.apply(decide(batch, transaction.known(batch), FIGURER))
        other = pair.second_commits(settlement("r", create_time=LATER))
        pair.wait_for_the_queue()
    assert len(other.result(PATIENCE_S).rows) == 1
    assert len({row.request_id for _, row in pair.reader.entries(10)}) == 2


def test_intent_that_was_on_its_way_to_another_ledger_does_not_open_a_booked_request(pair: Pair) -> None:
    batch = batch_of(settlement("r"))
    with pair.first.transaction() as transaction:
        transaction.apply(decide(batch, transaction.known(batch), FIGURER))
        late = pair.second_commits(intent("r"))
        pair.wait_for_the_queue()
    assert late.result(PATIENCE_S).opened == []
    assert pair.reader.totals()[1] == 0


def test_two_ledgers_that_give_up_a_router_book_its_loss_once(pair: Pair) -> None:
    commit(pair.first, intent("r"), router_id="gone")
    batch = Batch(gone_routers=["gone"])
    with pair.first.transaction() as transaction:
        transaction.apply(decide(batch, transaction.known(batch), FIGURER))
        other = pair.second_commits(gone=("gone",))
        pair.wait_for_the_queue()
    assert other.result(PATIENCE_S).rows == []
    assert outcomes(pair.reader) == [("r", Outcome.OUTCOME_LOST)]
    assert pair.reader.totals()[0].entry_count == 1


def test_other_requests_do_not_wait(pair: Pair) -> None:
    batch = batch_of(settlement("r0"))
    with pair.first.transaction() as transaction:
        transaction.known(batch)
        # Most of so many ids are in other slots; the first that is shows it.
        booked = 0
        for number in range(1, 5):
            with pair.second.transaction() as beside:
                beside._connection.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
                try:
                    beside.known(batch_of(settlement(f"r{number}")))
                except sa.exc.OperationalError:
                    beside._connection.rollback()
                    continue
                booked += 1
    assert booked >= 3
    assert LOCK_SLOTS == 64


def test_ledgers_that_give_up_routers_beside_many_records_never_wait_in_a_circle(pair: Pair) -> None:
    def work(writer: Writer, name: str, order: int) -> int:
        for number in range(60):
            ids = [f"r{(number * 7 + step) % 90}" for step in range(12)][::order]
            commit(
                writer,
                *(intent(each) for each in ids),
                *(settlement(each) for each in ids[::2]),
                router_id=name,
                gone=(name,) * (number % 9 == 0),
            )
        return 60

    beside = pair.thread.submit(work, pair.second, "b", -1)
    assert work(pair.first, "a", 1) + beside.result(PATIENCE_S * 3) == 120
    rows = [row for _, row in pair.reader.entries(1000)]
    assert len({row.request_id for row in rows}) == len(rows)
    assert pair.reader.totals()[0] == sum_of(rows)


def test_present_router_is_not_given_up_until_its_time_is_over(pair: Pair) -> None:
    commit(pair.first, intent("r"), intent("s"), router_id="a")
    with pair.second.transaction() as transaction:
        transaction.note_presence(["a", "b"], 3600)
    assert commit(pair.first, gone=("a",)).rows == []
    assert pair.first.waiting_routers() == {"a": 2}
    with pair.second.transaction() as transaction:
        transaction.note_presence(["a"], -1)
    assert len(commit(pair.first, gone=("a",)).rows) == 2


async def test_records_wait_for_a_server_that_is_away_for_a_moment(
    place: sa.URL, postgresql_server: postgresql.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A moment is as long as this machine needs to bring a crashed server back.
    monkeypatch.setattr(books_module, "RETRY_PAUSES_S", (0.05,) * int(PATIENCE_S / 0.05))
    async with started(place, "local") as ledger, Router(ledger) as router:
        await router.book(settlement("before"))
        await asyncio.to_thread(postgresql_server.stop, signal.SIGQUIT)
        await router.send(intents=[intent("r")], settlements=[settlement("r"), settlement("hit", hit())])
        await asyncio.to_thread(postgresql_server.start)
        response = await router.receive()
        assert (len(response.intent_acks), len(response.settlement_acks)) == (1, 2)
        # The reader comes back as well.
        assert [row.request_id for row in await ledger.entries()] == ["hit", "r", "before"]


async def test_without_its_server_the_ledger_refuses_as_unavailable_and_lives(
    place: sa.URL, postgresql_server: postgresql.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books_module, "RETRY_PAUSES_S", (0.01, 0.01))
    async with started(place, "local") as ledger:
        async with Router(ledger) as router:
            await router.book(intent("r"))
            await asyncio.to_thread(postgresql_server.stop)
            try:
                await router.send(settlements=[settlement("r")])
                error = await router.end()
                assert error is not None
                refusal = GatewayError.from_rpc(error)
                assert (refusal.reason, refusal.retry_after_s) == (ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE, 1)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ledger.entries()
                assert GatewayError.from_rpc(caught.value).reason == ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE
                await ledger.books.meet()
            finally:
                await asyncio.to_thread(postgresql_server.start)
        async with Router(ledger) as router:
            await router.book(intent("r"), settlement("r"))
        assert [(row.request_id, row.outcome) for row in await ledger.entries()] == [("r", Outcome.OUTCOME_FINISHED)]
        assert (await ledger.totals()).open_intent_count == 0


async def test_ledger_waits_at_its_start_for_a_server_that_starts_with_it(
    place: sa.URL, postgresql_server: postgresql.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_process, "START_PAUSES_S", (0.05,) * int(PATIENCE_S / 0.05))
    await asyncio.to_thread(postgresql_server.stop)
    starting = asyncio.create_task(asyncio.to_thread(postgresql_server.start))
    async with build(settings_for(tmp_path, **variables_of(place)), new_mesh()):
        pass
    await starting


@pytest.mark.parametrize("change", [{"database": "nothing"}, {"username": "nobody"}, {"host": "127.0.0.1", "port": 1, "query": {}}])
async def test_place_where_no_books_can_be_stops_the_start_by_name_and_without_the_password(
    place: sa.URL, change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_process, "START_PAUSES_S", (0.01,))
    wrong = postgresql.text_of(place.set(password="secret", **change))
    with pytest.raises(SettingsError, match=r"LEDGER_DATABASE_URL, database '.*' of user '.*': connection failed") as caught:
        async with build(settings_for(tmp_path, LEDGER_DATABASE_URL=wrong), new_mesh()):
            pass
    assert "secret" not in str(caught.value)


def session_settings(place: sa.URL, synchronous: str) -> dict[str, str]:
    engine = open_engine(place, synchronous)
    with engine.connect() as connection:
        found = {
            name: str(connection.exec_driver_sql(f"SHOW {name}").scalar())
            for name in ("synchronous_commit", "transaction_isolation", "lock_timeout", "idle_in_transaction_session_timeout")
        }
    engine.dispose()
    return found


@pytest.mark.parametrize(
    ("server", "wanted", "then"),
    [("on", "full", "on"), ("off", "full", "on"), ("remote_write", "full", "remote_write"), ("on", "normal", "off")],
)
def test_commits_are_as_durable_as_wanted_whatever_the_server_does_by_itself(place: sa.URL, server: str, wanted: str, then: str) -> None:
    engine = open_engine(place, "full")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {place.database} SET synchronous_commit = {server}")
    engine.dispose()
    expected = {"synchronous_commit": then, "transaction_isolation": "read committed", "lock_timeout": "10s"}
    assert session_settings(place, wanted) == {**expected, "idle_in_transaction_session_timeout": "5s"}


def test_writers_find_requests_by_index_in_tables_that_the_server_knows_nothing_of(pair: Pair) -> None:
    for start in range(0, 3000, 500):
        commit(pair.first, *(settlement(f"r{number}") for number in range(start, start + 500)))
    wanted = ", ".join(f"'r{number}'" for number in range(200))
    with pair.engines[0].connect() as connection:
        lines = connection.exec_driver_sql(f"EXPLAIN SELECT * FROM entries WHERE request_id IN ({wanted}) ORDER BY attempt").scalars()
        plan = "\n".join(lines)
    assert "entries_request_id_attempt_key" in plan
    assert "Seq Scan" not in plan


def test_what_the_url_says_of_the_connection_counts(place: sa.URL) -> None:
    said = server_url(postgresql.text_of(place.update_query_dict({"application_name": "mine"})))
    engine = open_engine(said, "full")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW application_name").scalar() == "mine"
    engine.dispose()
