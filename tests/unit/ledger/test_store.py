"""However records arrive, the books hold each once and the kept sums equal the rows."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1.entry_pb2 import Outcome
from services.ledger.booking import Changes, Totals, decide, sum_of
from services.ledger.engines import Place, open_engine
from services.ledger.intake import key_of
from services.ledger.lock import owned
from services.ledger.schema import entries, intents, totals
from services.ledger.store import Reader, Writer, open_books
from services.runtime.settings import SettingsError
from tests.unit.ledger.samples import BEGAN, LATER, attempt, batch_of, hit, intent, new_figurer, settlement

FIGURER = new_figurer()
Books = tuple[Writer, Reader]


@pytest.fixture
def books(place: Place) -> Iterator[Books]:
    with open_books(place, "full") as opened:
        yield opened


def commit(writer: Writer, *records: pb.Intent | pb.Settlement, router_id: str = "a", gone: tuple[str, ...] = ()) -> Changes:
    batch = batch_of(*records, router_id=router_id)
    batch.gone_routers += gone
    with writer.transaction() as transaction:
        changes = decide(batch, transaction.known(batch), FIGURER)
        transaction.apply(changes)
    return changes


def outcomes(reader: Reader) -> list[tuple[str, int]]:
    return [(row.request_id, row.outcome) for _, row in reader.entries(1000)]


def test_second_settlement_books_nothing_and_is_answered_with_the_first(books: Books) -> None:
    writer, reader = books
    first = commit(writer, intent("r"), settlement("r"))
    again = commit(writer, settlement("r", attempt(1, model="gpt-4o-mini"), attempt(2)))
    assert again.acknowledgements == first.acknowledgements
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
    assert writer.waiting_routers() == {"a": 1, "b": 1}
    commit(writer, gone=("a", "never-seen"))
    assert outcomes(reader) == [("mine", Outcome.OUTCOME_LOST), ("done", Outcome.OUTCOME_FINISHED)]
    assert writer.waiting_routers() == {"b": 1}


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


DERIVED = key_of(intent("r", create_time=LATER)).derived_id


def test_second_request_of_an_id_has_rows_of_its_own(books: Books) -> None:
    writer, reader = books
    commit(writer, intent("r"), settlement("r"))
    commit(writer, intent("r", create_time=LATER))
    assert reader.totals()[1] == 1
    second = commit(writer, settlement("r", attempt(1, model="gpt-4o-mini"), create_time=LATER))
    assert [(row.request_id, row.model) for _, row in reader.entries(10)] == [(DERIVED, "gpt-4o-mini"), ("r", "gpt-4o")]
    assert [ack.request_id for ack in second.acknowledgements.values()] == ["r"]
    assert (reader.totals()[0].request_count, reader.totals()[1]) == (2, 0)


def test_requests_of_one_id_are_told_apart_within_a_batch(books: Books) -> None:
    writer, reader = books
    commit(writer, intent("r"), intent("r", create_time=LATER), settlement("r", create_time=LATER), settlement("r", hit()))
    assert outcomes(reader) == [("r", Outcome.OUTCOME_CACHE_HIT), (DERIVED, Outcome.OUTCOME_FINISHED)]


def test_repeats_of_each_request_of_an_id_book_nothing(books: Books) -> None:
    writer, reader = books
    records = [settlement("r"), settlement("r", attempt(1, model="gpt-4o-mini"), create_time=LATER)]
    first = commit(writer, *records)
    for repeated in (records, records[::-1], records[1:]):
        again = commit(writer, intent("r"), intent("r", create_time=LATER), *repeated)
        assert again.acknowledgements.items() <= first.acknowledgements.items()
    assert len(reader.entries(10)) == 2
    assert reader.totals()[1] == 0


def test_request_whose_id_another_router_has_open_is_another(books: Books) -> None:
    writer, reader = books
    commit(writer, intent("r"), router_id="a")
    commit(writer, intent("r", create_time=LATER), router_id="b")
    assert reader.totals()[1] == 2
    commit(writer, settlement("r", create_time=LATER), router_id="b")
    assert (outcomes(reader), writer.waiting_routers()) == ([(DERIVED, Outcome.OUTCOME_FINISHED)], {"a": 1})


@pytest.mark.parametrize(
    ("began", "outcomes_then"),
    [
        (BEGAN, [(DERIVED, Outcome.OUTCOME_LOST), ("r", Outcome.OUTCOME_FINISHED)]),
        (LATER, [("r", Outcome.OUTCOME_LOST), (DERIVED, Outcome.OUTCOME_FINISHED)]),
    ],
    ids=["first", "second"],
)
def test_settlement_corrects_the_lost_row_of_its_own_request(books: Books, began: Timestamp, outcomes_then: list[tuple[str, int]]) -> None:
    writer, reader = books
    commit(writer, intent("r"), intent("r", create_time=LATER))
    commit(writer, gone=("a",))
    assert sorted(outcomes(reader)) == [("r", Outcome.OUTCOME_LOST), (DERIVED, Outcome.OUTCOME_LOST)]
    commit(writer, settlement("r", create_time=began))
    assert sorted(outcomes(reader)) == sorted(outcomes_then)
    assert reader.totals()[0] == sum_of(row for _, row in reader.entries(10))


def test_another_request_leaves_a_lost_row_of_its_id_alone(books: Books) -> None:
    writer, reader = books
    commit(writer, intent("r"))
    commit(writer, gone=("a",))
    commit(writer, settlement("r", create_time=LATER))
    assert outcomes(reader) == [(DERIVED, Outcome.OUTCOME_FINISHED), ("r", Outcome.OUTCOME_LOST)]


def test_rows_of_an_id_are_those_of_all_its_requests_and_of_no_other(books: Books) -> None:
    writer, reader = books
    commit(writer, settlement("r"), settlement("r", create_time=LATER), settlement("r", hit(), create_time=Timestamp(seconds=1)))
    commit(writer, settlement("r2"), settlement("q"), settlement("R"), settlement("%"), settlement("r}"), settlement("r\x7f"))
    assert [row.request_id for _, row in reader.entries(10, request_id="r")] == ["r~gjdgxs", DERIVED, "r"]
    assert [row.request_id for _, row in reader.entries(10, request_id=DERIVED)] == [DERIVED]
    assert [row.request_id for _, row in reader.entries(10, request_id="%")] == ["%"]


RECORD = st.tuples(
    st.integers(0, 3).map(lambda number: f"r{number}"),
    st.sampled_from(["intent", "settle", "hit", "retry", "lose"]),
    st.sampled_from("ab"),
    st.sampled_from([BEGAN, LATER]),
)


def _record(name: str, what: str, began: Timestamp) -> pb.Intent | pb.Settlement:
    if what == "intent":
        return intent(name, create_time=began)
    attempts = {"hit": [hit()], "settle": [attempt()], "retry": [attempt(1, Outcome.OUTCOME_FAILED), attempt(2, model="x")]}
    return settlement(name, *attempts[what], create_time=began)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(RECORD, max_size=6), max_size=8))
def test_each_settled_request_is_booked_once_and_the_sums_equal_the_rows_whatever_happened(
    place: Place, batches: list[list[tuple[str, str, str, Timestamp]]]
) -> None:
    engine = open_engine(Path(":memory:") if isinstance(place, Path) else place, "full")
    writer, reader = Writer(engine), Reader(engine)
    writer.create()
    with engine.begin() as connection:
        # The examples share a server's database.
        for table in (entries, intents):
            connection.execute(table.delete())
        connection.execute(totals.update().values(dict.fromkeys(Totals._fields, 0)))
    settled: set[tuple[str, int]] = set()
    for batch in batches:
        records = [_record(name, what, began) for name, what, _, began in batch if what != "lose"]
        gone = tuple(router for _, what, router, _ in batch if what == "lose")
        changes = commit(writer, *records, router_id=batch[0][2] if batch else "a", gone=gone)
        settled |= changes.acknowledgements.keys()
        rows = [row for _, row in reader.entries(1000)]
        assert reader.totals()[0] == sum_of(rows)
        keys = [(row.request_id, row.attempt) for row in rows]
        assert len(keys) == len(set(keys))
        assert {(row.request_id.partition("~")[0], row.created_ns) for row in rows if not row.is_lost} == settled
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
    batch = batch_of(settlement("unseen"))
    with writer.transaction() as transaction:
        transaction.apply(decide(batch, transaction.known(batch), FIGURER))
        assert reader.totals()[0].entry_count == 1
        assert len(reader.entries(10)) == 1
    assert reader.totals()[0].entry_count == 2


def test_failed_transaction_leaves_no_trace(books: Books) -> None:
    writer, reader = books
    batch = batch_of(intent("i"), settlement("s"))
    with pytest.raises(RuntimeError), writer.transaction() as transaction:
        transaction.apply(decide(batch, transaction.known(batch), FIGURER))
        raise RuntimeError
    assert reader.totals() == (sum_of([]), 0)


def test_what_a_failed_transaction_opened_and_closed_is_forgotten(books: Books) -> None:
    writer, reader = books
    commit(writer, intent("before"))
    batch = batch_of(intent("i"), settlement("before"))
    with pytest.raises(RuntimeError), writer.transaction() as transaction:
        transaction.apply(decide(batch, transaction.known(batch), FIGURER))
        raise RuntimeError
    assert reader.totals()[1] == 1
    changes = commit(writer, intent("i"), settlement("before"))
    assert ([opened.request_id for opened in changes.opened], list(changes.closed_ids)) == (["i"], ["before"])
    assert reader.totals()[1] == 1
    assert not list(commit(writer, intent("i")).opened)


def test_reading_connection_cannot_write(place: Place) -> None:
    with open_books(place, "full"):
        reading = open_engine(place, "full", read_only=True)
        with pytest.raises(DBAPIError, match=r"read-?only"):
            commit(Writer(reading), settlement("r"))
        reading.dispose()


@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
def test_file_is_in_wal_mode_at_the_wanted_durability(tmp_path: Path, synchronous: str, level: int) -> None:
    engine = open_engine(tmp_path / "ledger.db", synchronous)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level
    engine.dispose()


def test_books_outlive_the_process_that_wrote_them(place: Place) -> None:
    with open_books(place, "full") as (writer, _):
        commit(writer, settlement("r"))
    with open_books(place, "full") as (writer, reader):
        assert outcomes(reader) == [("r", Outcome.OUTCOME_FINISHED)]
        assert writer.recent_models(5) == [("openai", "gpt-4o")]


def test_money_is_an_integer_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with open_books(path, "full") as (writer, _):
        commit(writer, settlement("r"))
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
