"""A digest names the question, not the way it was written down."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.wire.fingerprint import exact_digest
from services.wire.openai import checked_request, decode_request
from tests.unit.wire import bodies
from tests.unit.wire.json_text import render


def shuffled(value: Any, data: st.DataObject) -> Any:
    if isinstance(value, dict):
        names = data.draw(st.permutations(list(value)))
        return {name: shuffled(value[name], data) for name in names}
    return [shuffled(member, data) for member in value] if isinstance(value, list) else value


@given(body=bodies.requests, data=st.data())
def test_the_way_of_writing_does_not_count(body: Any, data: st.DataObject) -> None:
    request = decode_request(render(body))
    rewritten = decode_request(render(shuffled(body, data), ensure_ascii=True, separators=(" ,\n", " : ")))
    assert exact_digest(request) == exact_digest(rewritten) == exact_digest(checked_request(request))


@given(one=bodies.json_values, another=bodies.json_values)
def test_unmodelled_values_meet_only_when_equal(one: Any, another: Any) -> None:
    def digest(value: Any) -> bytes:
        return exact_digest(decode_request(render({"model": "m", "messages": [{"role": "user"}], "x": value})))

    assert (digest(one) == digest(another)) == (one == another)
