"""However records arrive, the books hold each once and the kept sums equal the rows."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1.entry_pb2 import Outcome
from services.ledger.booking import Batch, Changes, decide, sum_of
from services.ledger.lock import owned
from services.ledger.records import open_intent
from services.ledger.store import Reader, Writer, open_books, open_engine
from services.runtime.settings import SettingsError
from tests.unit.ledger.samples import attempt, hit, intent, new_figurer, settlement

FIGURER = new_figurer()
Books = tuple[Writer, Reader]


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    with open_books(tmp_path / "ledger.db", "full") as opened:
        yield opened


def commit(writer: Writer, *records: pb.Intent | pb.Settlement, router_id: str = "a", gone: tuple[str, ...] = ()) -> Changes:
    batch = Batch(
        [open_intent(record, router_id, 0) for record in records if isinstance(record, pb.Intent)],
        [record for record in records if isinstance(record, pb.Settlement)],
        list(gone),
    )
    with writer.transaction() as transaction:
        changes = decide(batch, transaction.known(batch), FIGURER, 0)
        transaction.apply(changes)
    return changes


def outcomes(reader: Reader) -> list[tuple[str, int]]:
    return [(row.request_id, row.outcome) for _, row in reader.entries(1000)]


def test_second_settlement_books_nothing_and_is_answered_with_the_first(books: Books) -> None:
    writer, reader = books
    first = commit(writer, intent("r"), settlement("r"))
    again = commit(writer, settlement("r", attempt(1, model="gpt-4o-mini"), attempt(2)))
    assert again.acknowledgements["r"] == first.acknowledgements["r"]
    assert len(reader.entries(10)) == 1


def test_settlement_repeated_within_a_batch_is_booked_once(books: Books) -> None:
    writer, reader = books
    commit(writer, settlement("r"), settlement("r", hit()))
    assert outcomes(reader) == [("r", Outcome.OUTCOME_FINISHED)]


def test_intent_repeated_after_its_settlement_does_not_open_again(books: Books) -> None:
    writer, reader = books
    commit(writer, intent("r"))
    assert reader.totals()[1] == 1
    commit(writer, settlement("r"))
    commit(writer, intent("r"))
    assert reader.totals()[1] == 0


def test_gone_router_loses_its_requests_and_no_others(books: Books) -> None:
    writer, reader = books
    commit(writer, intent("mine"), intent("done"), settlement("done"))
    commit(writer, intent("theirs"), router_id="b")
    assert sorted(writer.waiting_routers()) == ["a", "b"]
    commit(writer, gone=("a", "never-seen"))
    assert outcomes(reader) == [("mine", Outcome.OUTCOME_LOST), ("done", Outcome.OUTCOME_FINISHED)]
    assert writer.waiting_routers() == ["b"]


def test_late_settlement_corrects_a_lost_row(books: Books) -> None:
    writer, reader = books
    commit(writer, intent("r"))
    commit(writer, gone=("a",))
    commit(writer, intent("r"))
    late = commit(writer, settlement("r", attempt(1, Outcome.OUTCOME_FAILED), attempt(2)))
    assert outcomes(reader) == [("r", Outcome.OUTCOME_FINISHED), ("r", Outcome.OUTCOME_FAILED)]
    assert commit(writer, settlement("r")).acknowledgements == late.acknowledgements
    assert reader.totals()[0] == sum_of(row for _, row in reader.entries(10))


def test_settlement_beside_the_loss_of_its_router_wins(books: Books) -> None:
    writer, reader = books
    commit(writer, intent("r"))
    commit(writer, settlement("r"), gone=("a",))
    assert outcomes(reader) == [("r", Outcome.OUTCOME_FINISHED)]
    assert reader.totals()[1] == 0


RECORD = st.tuples(
    st.integers(0, 5).map(lambda number: f"r{number}"), st.sampled_from(["intent", "settle", "hit", "retry", "lose"]), st.sampled_from("ab")
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(RECORD, max_size=6), max_size=8))
def test_kept_sums_equal_the_rows_whatever_happened(batches: list[list[tuple[str, str, str]]]) -> None:
    engine = open_engine(Path(":memory:"), "full")
    writer, reader = Writer(engine), Reader(engine)
    writer.create()
    for batch in batches:
        commit(
            writer,
            *(intent(name) for name, what, _ in batch if what == "intent"),
            *(settlement(name) for name, what, _ in batch if what == "settle"),
            *(settlement(name, hit()) for name, what, _ in batch if what == "hit"),
            *(settlement(name, attempt(1, Outcome.OUTCOME_FAILED), attempt(2, model="x")) for name, what, _ in batch if what == "retry"),
            router_id=batch[0][2] if batch else "a",
            gone=tuple(router for _, what, router in batch if what == "lose"),
        )
        rows = [row for _, row in reader.entries(1000)]
        assert reader.totals()[0] == sum_of(rows)
        keys = [(row.request_id, row.attempt) for row in rows]
        assert len(keys) == len(set(keys))
    engine.dispose()


def test_pages_do_not_shift_while_rows_are_booked_or_corrected(books: Books) -> None:
    writer, reader = books
    commit(writer, intent("lost"))
    commit(writer, gone=("a",))
    commit(writer, *(settlement(f"r{number}") for number in range(4)))
    first = reader.entries(2)
    commit(writer, settlement("new"), settlement("lost"))
    rest = reader.entries(10, before=first[-1][0])
    assert [row.request_id for _, row in (*first, *rest)] == ["r3", "r2", "r1", "r0"]


def test_a_sequence_number_is_never_given_out_twice(books: Books) -> None:
    writer, reader = books
    commit(writer, intent("r"))
    commit(writer, gone=("a",))
    [(before, _)] = reader.entries(1)
    commit(writer, settlement("r"))
    [(after, _)] = reader.entries(1)
    assert after > before


def test_rows_of_one_request_are_found(books: Books) -> None:
    writer, reader = books
    commit(writer, settlement("a"), settlement("b", attempt(1), attempt(2)))
    assert [row.attempt for _, row in reader.entries(10, request_id="b")] == [2, 1]


def test_reads_do_not_wait_behind_a_transaction_and_do_not_see_it(books: Books) -> None:
    writer, reader = books
    commit(writer, settlement("seen"))
    batch = Batch(settlements=[settlement("unseen")])
    with writer.transaction() as transaction:
        transaction.apply(decide(batch, transaction.known(batch), FIGURER, 0))
        assert reader.totals()[0].entry_count == 1
        assert len(reader.entries(10)) == 1
    assert reader.totals()[0].entry_count == 2


def test_failed_transaction_leaves_no_trace(books: Books) -> None:
    writer, reader = books
    batch = Batch([open_intent(intent("i"), "a", 0)], [settlement("s")])
    with pytest.raises(RuntimeError), writer.transaction() as transaction:
        transaction.apply(decide(batch, transaction.known(batch), FIGURER, 0))
        raise RuntimeError
    assert reader.totals() == (sum_of([]), 0)


def test_reading_connection_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with open_books(path, "full"):
        reading = open_engine(path, "full", read_only=True)
        with pytest.raises(OperationalError, match="readonly"):
            commit(Writer(reading), settlement("r"))
        reading.dispose()


@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
def test_file_is_in_wal_mode_at_the_wanted_durability(tmp_path: Path, synchronous: str, level: int) -> None:
    engine = open_engine(tmp_path / "ledger.db", synchronous)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level
    engine.dispose()


def test_books_outlive_the_process_that_wrote_them(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with open_books(path, "full") as (writer, _):
        commit(writer, settlement("r"))
    with open_books(path, "full") as (writer, reader):
        assert outcomes(reader) == [("r", Outcome.OUTCOME_FINISHED)]
        assert writer.recent_models(5) == [("openai", "gpt-4o")]
    with sqlite3.connect(path) as plain:
        kinds = {kind for (kind,) in plain.execute("SELECT DISTINCT typeof(cost_nano_usd) FROM entries")}
    plain.close()
    assert kinds == {"integer"}


def test_books_have_one_owner_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.db"
    with owned(path), pytest.raises(SettingsError, match=r"another ledger \(process \d+\) has these books open"), owned(path):
        pass
    with owned(path):
        pass


def test_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="LEDGER_DB_PATH"), owned(tmp_path / "file" / "ledger.db"):
        pass
