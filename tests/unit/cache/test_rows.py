"""Entries as rows: nothing is lost, and what is not whole is nothing."""

import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulegate.cache.v1 import cache_service_pb2 as pb
from services.cache.rows import PIECE_BYTES, entries_of, reading_plan, row_ids, rows_of
from tests.unit.cache.samples import kept, newer, wording


@pytest.mark.parametrize("size", [3, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES + 7])
def test_rows_give_the_entry_back(size: int) -> None:
    entry = kept(size=size)
    rows = rows_of(entry)
    assert [row["row_id"] for row in rows] == row_ids(entry.entry_id, size)
    # What Milvus takes at most for a JSON value.
    assert all(len(json.dumps(row["value"], separators=(",", ":"))) <= 65_536 for row in rows)
    random.Random(1).shuffle(rows)
    assert list(entries_of(rows)) == [entry]


def test_rows_give_words_vector_tags_and_joules_back() -> None:
    entry = kept(size=2 * PIECE_BYTES, microjoules=5, tags=("faq",), wording=wording("s", 3, 4, text="Ünïcödé"))
    assert list(entries_of(rows_of(entry))) == [entry]


def test_entry_with_a_piece_missing_is_no_entry() -> None:
    rows = rows_of(kept(size=3 * PIECE_BYTES))
    assert list(entries_of(rows[:-1])) == []


def test_entry_whose_missing_piece_would_not_be_noticed_by_parsing_is_no_entry() -> None:
    first_piece = kept(size=PIECE_BYTES).data
    entry = newer(kept(), data=first_piece + pb.Entry(model="large").SerializeToString())
    rows = rows_of(entry)
    assert len(rows) == 2
    assert list(entries_of(rows[:1])) == []


def test_pieces_of_a_longer_predecessor_are_not_joined() -> None:
    old, new = kept(size=3 * PIECE_BYTES, created_us=1), kept(size=2 * PIECE_BYTES, created_us=2)
    upserted = {row["row_id"]: row for row in [*rows_of(old), *rows_of(new)]}
    assert list(entries_of(upserted.values())) == [new]


@pytest.mark.parametrize("value", [{}, {"base64": ""}, {"base64": "not base64!"}, {"base64": "/////w=="}])
def test_unreadable_row_is_no_entry(value: dict[str, str]) -> None:
    (row,) = rows_of(kept())
    row["value"] = value
    assert [entry.data for entry in entries_of([row])] in ([], [b""])


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), unique_by=lambda pair: pair[0]), st.integers(1, 5))
def test_reading_plan_reads_each_row_once_newest_first_and_splits_no_entry(entries: list[tuple[int, int]], max_rows: int) -> None:
    heads = [(row_id, number) for number, pieces in entries for row_id in row_ids(kept(number).entry_id, pieces * PIECE_BYTES)]
    created = dict(heads)
    plan = reading_plan(heads, max_rows)
    flat = [row_id for batch in plan for row_id in batch]
    assert sorted(flat) == sorted(created)
    assert [created[row_id] for row_id in flat] == sorted(created.values(), reverse=True)
    for earlier, later in pairwise(plan):
        assert len(earlier) >= max_rows
        assert earlier[-1].partition("-")[0] != later[0].partition("-")[0]
