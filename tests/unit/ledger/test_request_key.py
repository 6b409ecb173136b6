"""A client's id and the time of a request name it in the books, however often its records come."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from services.ledger.intake import key_of
from services.ledger.request_key import RequestKey, booked_ids
from tests.unit.ledger.samples import intent, settlement


@pytest.mark.parametrize(
    ("created_ns", "derived"),
    [(1, "r~1"), (35, "r~z"), (36, "r~10"), (1_700_000_000_000_000_001, "r~cwyvpelgpse9"), (2**63 - 1, "r~1y2p0ij32e8e7")],
)
def test_derived_id_names_the_time_in_base_36(created_ns: int, derived: str) -> None:
    assert RequestKey("r", created_ns).derived_id == derived
    assert int(derived.removeprefix("r~"), 36) == created_ns


def test_intent_and_settlement_of_a_request_have_one_key_to_the_nanosecond() -> None:
    began = Timestamp(seconds=5, nanos=7)
    assert key_of(intent("r", create_time=began)) == key_of(settlement("r", create_time=began)) == ("r", 5_000_000_007)


def test_first_request_of_an_id_has_it_and_others_have_their_own() -> None:
    keys = [RequestKey("a", 2), RequestKey("a", 1), RequestKey("b", 3), RequestKey("b", 4), RequestKey("a", 2)]
    assert booked_ids(keys, {"b": 4}) == {keys[0]: "a", keys[1]: "a~1", keys[2]: "b~3", keys[3]: "b"}


KEYS = st.lists(st.builds(RequestKey, st.sampled_from("ab"), st.integers(1, 5)))


@given(KEYS, KEYS)
def test_ids_stay_and_are_different_in_whichever_order_records_come(first: list[RequestKey], later: list[RequestKey]) -> None:
    before = booked_ids(first, {})
    after = booked_ids(later, {key.request_id: key.created_ns for key, booked in before.items() if booked == key.request_id})
    assert all(after[key] == before[key] for key in before.keys() & after.keys())
    together = before | after
    assert len(set(together.values())) == len(together)
