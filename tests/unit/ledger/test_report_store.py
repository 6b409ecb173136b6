"""Sums that no store rounds or refuses, and the index that finds the rows of a time."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from joulegate.ledger.v1.report_pb2 import Interval
from services.ledger import report
from services.ledger.engines import Place, open_engine
from services.ledger.records import Row
from services.ledger.report import FIELDS, Question
from services.ledger.report_store import ReportReader
from services.ledger.schema import entries
from services.ledger.store import Writer
from services.runtime.errors import GatewayError
from tests.unit.ledger.samples import new_figurer, settled_rows_of, settlement

HOUR_NS = 3600 * 10**9
[ROW] = settled_rows_of(settlement("r"), new_figurer())


@pytest.fixture
def engine(place: Place) -> Iterator[sa.Engine]:
    engine = open_engine(place, "full")
    Writer(engine).create()
    yield engine
    engine.dispose()


def insert(engine: sa.Engine, *rows: Row) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(entries), [row._asdict() for row in rows])


def test_sums_beyond_64_bits_are_exact_and_refused_by_name_where_they_do_not_fit(engine: sa.Engine) -> None:
    largest = 2**63 - 1
    insert(engine, *(ROW._replace(request_id=str(number), cost_nano_usd=largest - number) for number in range(5)))
    asked = Question(0, 2**62)
    _, groups = ReportReader(engine).sums(asked, 10)
    assert groups[0][1].cost_nano_usd == 5 * largest - 10
    with pytest.raises(GatewayError, match="start_time: the sum of cost_nano_usd") as raised:
        report.response(asked, groups, "")
    assert raised.value.metadata["param"] == "start_time"


def test_sum_of_exactly_63_bits_fits(engine: sa.Engine) -> None:
    insert(engine, *(ROW._replace(request_id=str(number), carbon_micrograms=2**62 - number) for number in range(2)))
    asked = Question(0, 2**62)
    (row,) = report.response(asked, ReportReader(engine).sums(asked, 10)[1], "").rows
    assert row.carbon_micrograms == 2**63 - 1


def test_rows_of_a_time_are_found_by_the_index(place: Place, engine: sa.Engine) -> None:
    rows = [
        ROW._replace(request_id=str(number), created_ns=ROW.created_ns + number * HOUR_NS, key_id=f"k{number % 50}")
        for number in range(3000)
    ]
    insert(engine, *rows)
    executed: list[tuple[str, Any]] = []
    if not isinstance(place, Path):
        with engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE entries")
    reading = open_engine(place, "full", read_only=True)

    @sa.event.listens_for(reading, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        executed.append((statement, parameters))

    groupings = [names for count in range(3) for names in combinations(FIELDS.values(), count)]
    for fields in groupings:
        for interval in Interval.values():
            question = Question(rows[100].created_ns, rows[110].created_ns, fields, interval)
            _, groups = ReportReader(reading).sums(question, 1000)
            assert sum(sums.attempt_count for _, sums in groups) == 10
            statement, parameters = executed[-1]
            explain = "EXPLAIN QUERY PLAN" if isinstance(place, Path) else "EXPLAIN"
            with reading.connect() as connection:
                plan = "\n".join(map(str, connection.exec_driver_sql(f"{explain} {statement}", parameters)))
            assert "entries_by_time" in plan, (fields, interval, plan)
    reading.dispose()
