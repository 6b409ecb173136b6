"""Whatever is changed in books behind the ledger's back, an audit says so; what the ledger does itself is no fault."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from services.ledger import chain, chain_store, migration
from services.ledger.audit import Anchor, Findings, anchor
from services.ledger.audit_store import audit_books
from services.ledger.engines import Place, open_engine
from services.ledger.records import Row
from services.ledger.schema import entries, superseded
from services.ledger.store import Writer, open_books
from tests.postgresql import variables_of
from tests.unit.ledger.samples import LATER, attempt, hit, intent, settlement
from tests.unit.ledger.test_migration import OLD, old_books, operator
from tests.unit.ledger.test_store import commit

__all__ = ["operator"]
EMPTY = Row("r", 1, 0, "", "", "", "", 0, False, 0, 0, 0, 0, 0, False, 0, 0, 0, 0, 0, 0, 0, 0, 0, "WOR")


@pytest.fixture
def engine(place: Place) -> Iterator[sa.Engine]:
    """Books with requests of all kinds, of which one was given up and came back."""
    with open_books(place, "full") as (writer, _):
        commit(writer, intent("late"), intent("open"))
        commit(writer, settlement("a", attempt(1), attempt(2)), settlement("b", hit()), settlement("c"), settlement("c", create_time=LATER))
        commit(writer, intent("mine"), router_id="b")
        commit(writer, gone=("b",))
        commit(writer, settlement("mine"), settlement("d", attempt(1, model="gpt-4o-mini")))
        commit(writer, intent("lost"), router_id="c")
        commit(writer, gone=("c",))
    engine = open_engine(place, "full")
    yield engine
    engine.dispose()


def audited(place: Place, *anchors: Anchor, **more: Any) -> Findings:
    engine = open_engine(place, "full", read_only=True)
    try:
        return audit_books(engine, anchors, **more)
    finally:
        engine.dispose()


def change(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_what_the_ledger_does_is_no_fault(place: Place, engine: sa.Engine) -> None:
    found = audited(place)
    assert found.faults == []
    assert found.notes[-1] == "8 rows of 7 requests booked; 2 requests open"
    with engine.connect() as connection:
        assert [row.request_id for row in connection.execute(sa.select(superseded))] == ["mine"]


# Each is one change behind the ledger's back, and what an audit has to say of it.
TAMPERED: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "changed": (
        ("UPDATE entries SET key_id = 'k2' WHERE request_id = 'b'",),
        ["link 3 (request 'b', attempt 0): not what was booked there"],
    ),
    "cheaper": (
        ("UPDATE entries SET cost_nano_usd = cost_nano_usd - 1 WHERE request_id = 'd'",),
        ["(request 'd', attempt 1): not what was booked there", "totals: cost_nano_usd is"],
    ),
    "cheaper with its totals": (
        (
            "UPDATE entries SET cost_nano_usd = cost_nano_usd - 1 WHERE request_id = 'd'",
            "UPDATE totals SET cost_nano_usd = cost_nano_usd - 1 WHERE links > 0",
        ),
        ["(request 'd', attempt 1): not what was booked there"],
    ),
    "deleted": (("DELETE FROM entries WHERE request_id = 'b'",), ["link 3 is missing, before link 4", "totals: "]),
    "deleted at the end": (("DELETE FROM entries WHERE request_id = 'lost'",), ["link 9 is missing at the end", "totals: "]),
    "deleted in a row": (("DELETE FROM entries WHERE request_id IN ('a', 'b')",), ["links 1 to 3 are missing", "totals: "]),
    "hash": (
        ("UPDATE entries SET hash = (SELECT head FROM totals WHERE links > 0) WHERE request_id = 'b'",),
        ["link 3 (request 'b', attempt 0): not what was booked there", "link 4 (request 'c', attempt 1): not what was booked there"],
    ),
    "end": (("UPDATE totals SET links = links - 1 WHERE links > 0",), ["link 9 is there beyond the end that the totals know"]),
    "head": (
        ("UPDATE totals SET head = (SELECT hash FROM entries WHERE request_id = 'b') WHERE links > 0",),
        ["its last link is not the one that the totals know"],
    ),
    "in no chain": (
        ("UPDATE entries SET chain = NULL, link = NULL, hash = NULL WHERE request_id = 'lost'",),
        ["link 9 is missing at the end", "totals: ", "1 rows are in no chain"],
    ),
    "open again": (
        (
            "INSERT INTO intents SELECT 'b', router_id, created_ns, key_id, requested_model, provider, model, streamed,"
            " estimated_input_tokens, max_output_tokens, 1, 1, 0, 0, 0, 0, 0, 0 FROM intents WHERE request_id = 'open'",
        ),
        ["request 'b': booked, and open"],
    ),
    "given way to nothing": (
        ("DELETE FROM entries WHERE request_id = 'mine'",),
        ["request 'mine', attempt 1: taken out of the books, and nothing is there for it"],
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_change_behind_the_back_of_the_ledger_is_found(place: Place, engine: sa.Engine, how: str) -> None:
    statements, said = TAMPERED[how]
    change(engine, *statements)
    faults = audited(place).faults
    for each in said:
        assert any(each in fault for fault in faults), faults
    # And nothing is said that is not so.
    if not any(each.startswith("totals") for each in said) and "DELETE" not in statements[0]:
        assert len(faults) == len(said), faults


def test_rows_that_changed_places_are_found(place: Place, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        (b, b_hash), (d, d_hash) = (
            connection.execute(sa.select(entries.c.link, entries.c.hash).where(entries.c.request_id == each)).one() for each in "bd"
        )
        for request_id, link, digest in (("b", -1, b"-"), ("d", b, b_hash), ("b", d, d_hash)):
            connection.execute(sa.update(entries).where(entries.c.request_id == request_id).values(link=link, hash=digest))
    faults = audited(place).faults
    assert [fault.partition(" (")[2] for fault in faults] == [
        "request 'd', attempt 1): not what was booked there",
        "request 'b', attempt 0): not what was booked there",
    ]


def test_settled_row_that_is_put_aside_as_if_it_had_been_lost_is_found(place: Place, engine: sa.Engine) -> None:
    change(engine, "INSERT INTO superseded SELECT * FROM entries WHERE request_id = 'd'", "DELETE FROM entries WHERE request_id = 'd'")
    faults = audited(place).faults
    assert "request 'd', attempt 1: taken out of the books, and nothing is there for it" in faults
    # The chain itself is whole.
    assert not any(fault.startswith("chain") for fault in faults)


def test_row_that_is_put_back_beside_what_it_gave_way_to_is_found(place: Place, engine: sa.Engine) -> None:
    change(engine, "UPDATE superseded SET attempt = 7", "INSERT INTO entries SELECT * FROM superseded", "DELETE FROM superseded")
    assert "request 'mine': booked as lost and as settled" in audited(place).faults


def test_books_that_were_rewritten_with_all_their_hashes_differ_from_a_noted_end(place: Place, engine: sa.Engine) -> None:
    noted = anchor(audited(place).notes[0].rpartition(" ")[2])
    assert audited(place, noted).faults == []
    change(
        engine,
        "UPDATE entries SET chain = NULL, link = NULL, hash = NULL, key_id = 'k2'",
        "DELETE FROM superseded",
        "UPDATE totals SET links = 0, head = NULL",
    )
    chain_store.link_up(engine)
    assert audited(place).faults == []
    [fault] = audited(place, noted).faults
    assert fault == f"chain {noted.chain}: link {noted.link}, which was noted as {noted.hash}, is not there"


def test_flipped_byte_in_the_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with open_books(path, "full") as (writer, _):
        for number in range(50):
            commit(writer, settlement(f"request-{number}", requested_model="what-somebody-asked"))
    data = bytearray(path.read_bytes())
    # Of a column that is in no index: the file itself is well.
    data[data.index(b"what-somebody-asked") + 2] ^= 1
    path.write_bytes(bytes(data))
    [fault] = audited(path).faults
    assert "not what was booked there" in fault


def test_damaged_page_is_found_and_said(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with open_books(path, "full") as (writer, _):
        commit(writer, *(settlement(f"request-{number}") for number in range(2000)))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = bytes(range(256)) * 16
    path.write_bytes(bytes(data))
    assert any(fault.startswith(("the file is damaged: ", "the store cannot be read: ")) for fault in audited(path).faults)


def test_further_checks_say_their_own_faults(place: Place, engine: sa.Engine) -> None:
    def spends(connection: sa.Connection) -> Iterator[str]:
        yield f"budget b: {connection.scalar(sa.select(sa.func.count()).select_from(entries))} spent"

    assert audited(place, checks=[spends]).faults == ["budget b: 8 spent"]


def test_writers_on_one_server_write_chains_of_their_own(place: Place) -> None:
    with open_books(place, "full") as (writer, _):
        if not writer.is_shared:
            return
        engines = [open_engine(place, "full") for _ in range(12)]
        writers = [Writer(engine) for engine in engines]
        for number, each in enumerate(writers * 2):
            commit(each, intent(f"i{number}"), settlement(f"r{number}", attempt(1), attempt(2)))
            commit(each, settlement(f"i{number}"), gone=("a",))
        for engine in engines:
            engine.dispose()
    found = audited(place)
    assert found.faults == []
    assert len(found.notes) > 3


@pytest.mark.parametrize("age", OLD)
def test_rows_of_earlier_programs_are_linked(tmp_path: Path, age: str) -> None:
    path = old_books(tmp_path / "ledger.db", OLD[age])
    with open_books(path, "full"):
        pass
    assert audited(path).faults == []


def unlinked_books(place: Place, count: int) -> None:
    """Books of before there were chains."""
    with open_books(place, "full") as (writer, _):
        commit(writer, *(settlement(f"r{number}") for number in range(count)))
    engine = open_engine(place, "full")
    migration.migrate(engine, "0005")
    migration.migrate(engine, "head")
    engine.dispose()


KILLED = """
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from services.ledger import chain_store
from services.ledger.engines import open_engine, server_url

chain_store._BATCH = 10
chain_store._select_unlinked = chain_store._select_unlinked.limit(10)
engine = open_engine(Path(sys.argv[1]) if sys.argv[1].startswith("/") else server_url(sys.argv[1]), "full")
left = 3

@sa.event.listens_for(engine, "after_cursor_execute")
def count(_connection, _cursor, statement, *_):
    global left
    left -= statement.startswith("UPDATE entries")
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

chain_store.link_up(engine)
"""


def test_linking_that_is_killed_half_way_goes_on_at_the_next_start(place: Place) -> None:
    unlinked_books(place, 100)
    assert audited(place).faults[-1].startswith("100 rows are in no chain")
    [address] = variables_of(place).values()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", KILLED, address], env=environment).returncode == -signal.SIGKILL
    assert audited(place).faults[-1].startswith("80 rows are in no chain")
    with open_books(place, "full") as (writer, _):
        commit(writer, settlement("more"))
    found = audited(place)
    assert found.faults == []
    assert found.notes[-1].startswith("101 rows of 101 requests")


@given(st.text(), st.integers(0, 2**62), st.booleans(), st.sampled_from(["", "1f"]))
def test_hash_is_what_the_handbook_says_and_anybody_can_compute_it(text: str, number: int, flag: bool, version: str) -> None:
    row = EMPTY._replace(key_id=text, cost_nano_usd=number, streamed=flag, factors_version=version)
    before = hashlib.sha256(b"joulegate chain 1").digest()
    assert chain.origin(1).hash == before
    told = list(row)
    while told[-1] == Row._field_defaults.get(Row._fields[len(told) - 1], "always told"):
        told.pop()
    values = json.dumps(["entry", *told], ensure_ascii=False, separators=(",", ":")).encode()
    [linked], _ = chain.extend(chain.origin(1), [row])
    assert linked.hash == hashlib.sha256(before + values).digest()


def test_new_column_at_its_end_leaves_the_hash_of_a_row_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before = chain.hash_of(b"", EMPTY)
    monkeypatch.setattr(chain, "_ROW_ENDS", (*chain._ROW_ENDS, 0, "", None))
    assert chain.hash_of(b"", tuple.__new__(Row, (*EMPTY, 0, "", None))) == before
    hashes = {chain.hash_of(b"", tuple.__new__(Row, (*EMPTY, *more))) for more in ((0, "", 0), (0, "x", None), (1, "", None))}
    assert len(hashes | {before}) == 4


def test_operators_verify_with_an_exit_code(operator: Any, engine: sa.Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert operator("ledger", "verify") == 0
    said = capsys.readouterr().out.splitlines()
    end = said[0].rpartition(" ")[2]
    assert said[-1] == "no fault found"
    assert operator("ledger", "verify", "--anchor", end) == 0
    change(engine, "UPDATE entries SET key_id = 'k2' WHERE request_id = 'b'")
    capsys.readouterr()
    assert operator("ledger", "verify", "--anchor", end) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("FAULT: chain ")
    assert operator("ledger", "verify", "--anchor", "1:2") == 2
    change(engine, "UPDATE alembic_version SET version_num = '0005'")
    assert operator("ledger", "verify") == 2
    assert "the books are at revision 0005, and this program reads" in capsys.readouterr().err
