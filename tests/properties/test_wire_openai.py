"""Nothing of an OpenAI body is lost on the way through the typed messages."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.wire import openai
from services.wire.errors import InvalidAnswer, InvalidRequest
from tests.unit.wire import bodies
from tests.unit.wire.json_text import assert_kept, parse, render

spacings = st.sampled_from([(",", ":"), (" ,\n ", " : ")])


@given(body=bodies.requests, ensure_ascii=st.booleans(), separators=spacings)
def test_a_request_comes_back_to_the_letter(body: Any, ensure_ascii: bool, separators: tuple[str, str]) -> None:
    request = openai.decode_request(render(body, ensure_ascii=ensure_ascii, separators=separators))
    assert parse(openai.encode_request(request)) == body


@given(body=bodies.completions, ensure_ascii=st.booleans(), separators=spacings)
def test_a_completion_comes_back_to_the_letter(body: Any, ensure_ascii: bool, separators: tuple[str, str]) -> None:
    completion = openai.decode_completion(render(body, ensure_ascii=ensure_ascii, separators=separators))
    assert parse(openai.encode_completion(completion)) == body


@given(body=bodies.chunks, ensure_ascii=st.booleans(), separators=spacings)
def test_a_chunk_comes_back_to_the_letter(body: Any, ensure_ascii: bool, separators: tuple[str, str]) -> None:
    chunk = openai.decode_chunk(render(body, ensure_ascii=ensure_ascii, separators=separators))
    assert parse(openai.encode_chunk(chunk)) == body


@given(body=bodies.messy_answers)
def test_values_of_unexpected_types_are_kept_in_answers(body: Any) -> None:
    document = render(body)
    assert_kept(body, parse(openai.encode_completion(openai.decode_completion(document))))
    assert_kept(body, parse(openai.encode_chunk(openai.decode_chunk(document))))


@given(body=bodies.requests)
def test_a_checked_request_stays_as_it_is(body: Any) -> None:
    request = openai.checked_request(openai.decode_request(render(body)))
    assert openai.checked_request(request) == request


@given(document=st.binary() | bodies.json_values.map(render))
def test_any_bytes_give_a_message_or_the_documented_error(document: bytes) -> None:
    for decode, error in (
        (openai.decode_request, InvalidRequest),
        (openai.decode_completion, InvalidAnswer),
        (openai.decode_chunk, InvalidAnswer),
    ):
        with suppress(error):
            decode(document)


@given(body=bodies.requests, data=st.data())
def test_a_damaged_request_gives_the_documented_error(body: Any, data: st.DataObject) -> None:
    document = bytearray(render(body))
    position = data.draw(st.integers(0, len(document) - 1))
    document[position] = data.draw(st.integers(0, 255))
    try:
        result = openai.encode_request(openai.decode_request(bytes(document)))
    except InvalidRequest:
        return
    assert parse(result) == parse(bytes(document))  # what was let through is JSON, nested parts included


@pytest.mark.parametrize("name", ["temperature", "messages", "tools", "stop", "stream", "n", "seed", "user", "stream_options"])
@given(value=bodies.json_values)
def test_a_request_field_of_any_type_is_taken_or_named(name: str, value: Any) -> None:
    body = {"model": "m", "messages": [{"role": "user"}]} | {name: value}
    try:
        request = openai.decode_request(render(body))
    except InvalidRequest as error:
        assert error.param is not None and error.param.startswith(name)
    else:
        assert_kept(body, parse(openai.encode_request(request)))
