"""Old rows go, what they came to stays, and the chain can still be verified."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1.budget_pb2 import BudgetMeasure, BudgetScope, BudgetWindow, OnExhausted
from services.ledger import prune_store
from services.ledger.audit import anchor
from services.ledger.booking import Totals
from services.ledger.budget_changes import open_budgets
from services.ledger.budgets import NOTHING, Budget
from services.ledger.engines import Place, open_engine
from services.ledger.retention import Retention
from services.ledger.schema import checkpoints, entries, superseded
from services.ledger.store import TOTALS_ROWS, Reader, Writer, open_books
from tests.unit.ledger.samples import BEGAN, attempt, hit, intent, settlement
from tests.unit.ledger.test_audit import audited, change
from tests.unit.ledger.test_store import commit

DAY = 86_400
TOKENS = BudgetMeasure.BUDGET_MEASURE_TOKENS
Books = tuple[Writer, Reader]


def on_day(number: int) -> Timestamp:
    return Timestamp(seconds=BEGAN.seconds + number * DAY)


class Clock:
    """The wall's clock and the machine's own, apart."""

    def __init__(self, day: float) -> None:
        self.wall, self.own = BEGAN.seconds + day * DAY, 0.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.own


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune_store, "_AT_ONCE", 3)


@pytest.fixture
def books(place: Place) -> Iterator[Books]:
    """Two requests a day for ten days, of which one had been given up, one has two attempts and one is of the cache."""
    with open_books(place, "full") as (writer, reader):
        for day in range(10):
            commit(writer, intent(f"late-{day}", create_time=on_day(day)))
            commit(writer, gone=("a",))
            attempts = [attempt(1), attempt(2)] if day % 2 else [hit()]
            commit(writer, settlement(f"r-{day}", *attempts, create_time=on_day(day)), settlement(f"late-{day}", create_time=on_day(day)))
        yield writer, reader


async def look(writer: Writer, clock: Clock, days: float) -> int:
    with ThreadPoolExecutor(1) as thread:
        return await Retention(writer, thread, clock, days).look(days)


def left(reader: Reader) -> set[str]:
    return {row.request_id for _, row in reader.entries(1000)}


async def test_old_rows_go_and_the_totals_and_the_chain_stay(place: Place, books: Books) -> None:
    writer, reader = books
    before = reader.totals()
    deleted = await look(writer, Clock(day=42), days=38)
    assert left(reader) == {f"{kind}-{day}" for kind in ("r", "late") for day in range(4, 10)}
    # Six of the cache or of one call, four of two, and four that had been lost.
    assert deleted == 14
    assert reader.totals() == before
    found = audited(place)
    assert found.faults == []
    assert found.notes[-1].startswith(f"{before[0].entry_count} rows of 20 requests booked")
    assert await look(writer, Clock(day=42), days=38) == 0
    # The lost rows that had given way went with them.
    engine = open_engine(place, "full")
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.min(superseded.c.created_ns))) == on_day(4).ToNanoseconds()
    engine.dispose()


async def test_all_rows_may_go_one_look_after_the_other_and_the_books_go_on(place: Place, books: Books) -> None:
    writer, reader = books
    before = reader.totals()[0]
    deleted = 0
    for day in (41, 43, 46, 99):
        deleted += await look(writer, Clock(day=day), days=38)
        assert audited(place).faults == []
        before = before.plus(commit(writer, settlement(f"new-{day}", create_time=on_day(100 + day))).totals)
    assert deleted == 35
    assert reader.totals()[0] == before
    assert left(reader) == {"new-41", "new-43", "new-46", "new-99"}
    # Of the checkpoints none is kept that a later one has passed.
    engine = open_engine(place, "full")
    with engine.connect() as connection:
        kept = connection.execute(sa.select(checkpoints.c.link, checkpoints.c.through_link)).all()
        newest = max(through for _, through in kept)
    engine.dispose()
    assert all(link > newest for link, _ in kept)
    assert audited(place).faults == []


async def test_young_row_holds_up_what_was_booked_after_it(place: Place, books: Books) -> None:
    writer, reader = books
    commit(writer, settlement("dated-in-the-future", create_time=on_day(5000)), settlement("old", create_time=on_day(0)))
    assert await look(writer, Clock(day=99), days=38) == 35
    assert left(reader) == {"dated-in-the-future", "old"}
    assert audited(place).faults == []


async def test_clock_that_jumps_deletes_nothing(books: Books) -> None:
    writer, reader = books
    clock = Clock(day=10)
    with ThreadPoolExecutor(1) as thread:
        retention = Retention(writer, thread, clock, 38)
        clock.wall += 365 * DAY
        assert await retention.look(38) == 0
        clock.wall -= 365 * DAY
        assert await retention.look(38) == 0
        clock.wall += DAY
        clock.own += DAY
        assert await retention.look(38) == 0
    assert len(left(reader)) == 20


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE checkpoints SET cost_nano_usd = cost_nano_usd - 1",
        "UPDATE checkpoints SET before_ns = before_ns + 1",
        "DELETE FROM checkpoints",
        "DELETE FROM entries WHERE request_id = 'r-5'",
    ],
)
async def test_what_stands_for_deleted_rows_cannot_be_changed_unseen(place: Place, books: Books, tampering: str) -> None:
    await look(books[0], Clock(day=42), days=38)
    engine = open_engine(place, "full")
    change(engine, tampering)
    engine.dispose()
    assert audited(place).faults != []


async def test_noted_links_that_went_are_not_missed(place: Place, books: Books) -> None:
    engine = open_engine(place, "full")
    with engine.connect() as connection:
        noted = [
            anchor(f"{chain}:{link}:{digest.hex()}")
            for chain, link, digest in connection.execute(
                sa.select(entries.c.chain, entries.c.link, entries.c.hash).order_by(entries.c.link)
            )
        ]
    engine.dispose()
    await look(books[0], Clock(day=42), days=38)
    found = audited(place, *noted)
    assert found.faults == []
    assert any("was deleted for its age: not looked for" in note for note in found.notes)
    wrong = noted[-1]._replace(hash="00" * 32)
    assert len(audited(place, wrong).faults) == 1


async def test_deletion_that_is_cut_leaves_all_as_it_was(place: Place, books: Books) -> None:
    _, reader = books
    before = [row for _, row in reader.entries(1000)]
    engine = open_engine(place, "full")

    @sa.event.listens_for(engine, "after_cursor_execute")
    def _cut(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO checkpoints"):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await look(Writer(engine), Clock(day=42), days=38)
    engine.dispose()
    assert [row for _, row in reader.entries(1000)] == before
    assert audited(place).faults == []


def test_settlement_of_a_deleted_request_is_another_to_the_totals(place: Place, books: Books) -> None:
    writer, reader = books
    assert sum(writer.prune(chain, on_day(1).ToNanoseconds(), 0) for chain in range(1, TOTALS_ROWS + 1)) > 0
    totals: Totals = reader.totals()[0]
    again: pb.Settlement = settlement("r-0", create_time=on_day(0))
    assert commit(writer, again).totals.entry_count == 1
    assert reader.totals()[0].entry_count == totals.entry_count + 1
    assert audited(place).faults == []


async def test_what_a_rolling_window_needs_stays_and_budgets_that_are_made_anew_have_spent_the_same(place: Place, books: Books) -> None:
    writer, reader = books
    now_ns = on_day(42).ToNanoseconds()
    everybody, rolling = BudgetScope.BUDGET_SCOPE_GLOBAL, BudgetWindow.BUDGET_WINDOW_ROLLING
    budget = Budget("first", "", everybody, "", TOKENS, rolling, 36 * DAY, 10**9, OnExhausted.ON_EXHAUSTED_REFUSE, "", True, now_ns, 0)
    with open_budgets(place, "full", lambda _: NOTHING) as (budgets, viewer):
        assert budgets.insert(budget, now_ns)
        assert await look(writer, Clock(day=42), days=32) == 0
        # A second one is made of the same rows.
        assert budgets.insert(budget._replace(budget_id="second"), now_ns)
        first, second = viewer.views(2, "", now_ns)
        assert first.spent == second.spent > 0
        assert audited(place).faults == []
        # Twice its length after they were booked nobody needs them.
        assert await look(writer, Clock(day=10 + 73), days=32) > 0
        assert left(reader) == set()
        assert audited(place).faults == []
