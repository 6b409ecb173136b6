"""What is exported is what is booked, in every format, whole and harmless."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from joulegate.ledger.v1.entry_pb2 import Entry, Outcome
from services.ledger import export_store
from services.ledger.chain import Linked
from services.ledger.engines import Place
from services.ledger.export import FORMATS, NAMES, Placed, rfc_3339
from services.ledger.export_store import ALL, Span, open_export
from services.ledger.records import Row, entry
from services.ledger.store import Reader, open_books
from tests.unit.ledger.samples import BEGAN, attempt, hit, intent, settlement
from tests.unit.ledger.test_migration import operator
from tests.unit.ledger.test_store import commit

__all__ = ["operator"]
NASTY = '=HYPERLINK("http://x")\n,\'é'
SECOND = 10**9


@pytest.fixture
def rows(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Row]]:
    """Books of several pages, oldest first."""
    monkeypatch.setattr(export_store, "_select_page", export_store._select_page.limit(7))
    with open_books(place, "full") as (writer, reader):
        commit(writer, intent("lost"))
        commit(writer, gone=("a",))
        commit(writer, settlement("lost"))
        for number in range(20):
            began = Timestamp(seconds=BEGAN.seconds + number % 5, nanos=number)
            commit(writer, settlement(f"r{number}", attempt(1), attempt(2), hit(), create_time=began, requested_model=NASTY))
        yield booked(reader)


def booked(reader: Reader) -> list[Row]:
    return [row for _, row in sorted(((row.created_ns, number), row) for number, row in reader.entries(1000))]


def exported(place: Place, file_format: str, span: Span = ALL) -> bytes:
    exporter = FORMATS[file_format]()
    with open_export(place, "full") as reader:
        return b"".join([exporter.begin(), *(exporter.rows(page) for page in reader.pages(span)), exporter.end()])


def shown(row: Row) -> dict[str, Any]:
    """A row as its entry shows it, without its place in a chain."""
    message = entry(row)
    values: dict[str, Any] = {name: getattr(message, name) for name in NAMES if name in Entry.DESCRIPTOR.fields_by_name}
    for name, field in Entry.DESCRIPTOR.fields_by_name.items():
        if field.enum_type is not None:
            values[name] = field.enum_type.values_by_number[values[name]].name
    return values | {"create_time": rfc_3339(row.created_ns), "reported_cost_nano_usd": row.reported_cost_nano_usd}


PLACE = {"chain", "link", "hash"}


def test_names_are_those_of_the_entry() -> None:
    assert set(NAMES) - PLACE == set(Entry.DESCRIPTOR.fields_by_name)


def test_json_lines_are_the_rows(place: Place, rows: list[Row]) -> None:
    lines = [json.loads(line) for line in exported(place, "jsonl").splitlines()]
    assert [{name: value for name, value in line.items() if name not in PLACE} for line in lines] == [shown(row) for row in rows]
    assert all(isinstance(line["link"], int) and len(line["hash"]) == 64 for line in lines)


def test_csv_is_the_rows_and_no_formula(place: Place, rows: list[Row]) -> None:
    text = exported(place, "csv").decode()
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert tuple(lines[0]) == NAMES
    for line, row in zip(lines, rows, strict=True):
        for name, value in shown(row).items():
            expected = (
                "" if value is None else str(value).lower() if isinstance(value, bool) else f"'{value}" if value == NASTY else str(value)
            )
            assert line[name] == expected, name


def test_parquet_is_the_rows_with_their_types(place: Place, rows: list[Row]) -> None:
    table = parquet.read_table(pa.BufferReader(exported(place, "parquet")))
    assert tuple(table.column_names) == NAMES
    types = {name: str(table.schema.field(name).type) for name in ("create_time", "cost_nano_usd", "streamed", "outcome", "link")}
    assert types == {
        "create_time": "timestamp[ns, tz=UTC]",
        "cost_nano_usd": "int64",
        "streamed": "bool",
        "outcome": "string",
        "link": "int64",
    }
    created = table.column("create_time").cast(pa.int64()).to_pylist()
    assert created == [row.created_ns for row in rows]
    columns = {name: table.column(name).to_pylist() for name in NAMES if name not in PLACE | {"create_time"}}
    for number, row in enumerate(rows):
        assert {name: column[number] for name, column in columns.items()} == {
            name: value for name, value in shown(row).items() if name != "create_time"
        }


@pytest.mark.parametrize("file_format", FORMATS)
def test_export_of_nothing_is_a_file(place: Place, file_format: str) -> None:
    with open_books(place, "full"):
        pass
    data = exported(place, file_format)
    match file_format:
        case "csv":
            assert data.decode().strip() == ",".join(NAMES)
        case "jsonl":
            assert data == b""
        case _:
            assert parquet.read_table(pa.BufferReader(data)).num_rows == 0


def test_only_rows_of_the_time_are_exported(place: Place, rows: list[Row]) -> None:
    since, until = rows[0].created_ns + SECOND, rows[0].created_ns + 3 * SECOND + 3
    found = [json.loads(line)["create_time"] for line in exported(place, "jsonl", Span(since, until)).splitlines()]
    assert found == [rfc_3339(row.created_ns) for row in rows if since <= row.created_ns < until]
    assert 0 < len(found) < len(rows)


def test_rows_that_are_booked_meanwhile_do_not_come(place: Place, rows: list[Row]) -> None:
    with open_books(place, "full") as (writer, _), open_export(place, "full") as reader:
        pages = reader.pages(ALL)
        found = next(pages)
        commit(writer, *(settlement(f"late-{number}", create_time=Timestamp(seconds=BEGAN.seconds + 3)) for number in range(50)))
        found += [placed for page in pages for placed in page]
    assert [placed.linked.row for placed in found] == rows


@given(st.text(max_size=20))
def test_no_text_becomes_a_formula(text: str) -> None:
    row = Row(text, 1, SECOND, text, "", "", "", 99, False, 0, 0, 0, 0, 0, False, 0, 0, 0, 0, 0, 0, 0, 0, -5, "WOR")
    data = FORMATS["csv"]().rows([Placed(None, Linked(row, 0, b""))]).decode()
    [fields] = csv.reader(io.StringIO(data, newline=""))
    assert not fields[0].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert fields[0].removeprefix("'") == text.removeprefix("'")
    assert (fields[NAMES.index("carbon_micrograms")], fields[NAMES.index("outcome")], fields[-1]) == ("-5", "99", "")


def test_operators_export_to_a_file(operator: Any, rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.jsonl"
    assert (
        operator("ledger", "export", "--format", "jsonl", "--since", "2023-11-14T22:13:21Z", "--until", "2023-11-15", "-o", str(out)) == 0
    )
    lines = out.read_text().splitlines()
    assert len(lines) == sum(row.created_ns >= (BEGAN.seconds + 1) * SECOND for row in rows)
    assert json.loads(lines[0])["outcome"] == Outcome.Name(Outcome.OUTCOME_CACHE_HIT)
    assert [each.name for each in tmp_path.glob("rows*")] == ["rows.jsonl"]
    assert operator("ledger", "export", "--since", "yesterday") == 2
    assert operator("ledger", "export", "-o", str(tmp_path / "no" / "where.csv")) == 2
    assert "--since 'yesterday': not a time" in capsys.readouterr().err
