"""OpenAI's dialect: what is sent, and what is read from answers of every kind, in any chunking."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.base import Reply
from services.dispatch.adapters.bodies import MAX_COMPLETION_BYTES
from services.dispatch.adapters.openai import OpenAIAdapter
from services.dispatch.failure import Failure, Kind
from services.wire.openai import decode_request
from tests.fakes.openai_upstream import chunk, completion_json, event, usage_json

ADAPTER = OpenAIAdapter()
ASK = chat_pb2.ChatRequest(model="lab/small", messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hi")])
ASK_STREAM = chat_pb2.ChatRequest(model="lab/small", stream=True, messages=ASK.messages)
SSE = "text/event-stream"
USAGE = event({"id": "chatcmpl-1", "created": 1, "model": "small", "choices": [], "usage": usage_json()})
DONE = b"data: [DONE]\n\n"


def read(request: chat_pb2.ChatRequest, pieces: list[bytes], content_type: str = SSE) -> tuple[list[chat_pb2.ChatEvent], Failure | None]:
    decoder = ADAPTER.decoder(request, Reply(content_type, "", 0))
    events: list[chat_pb2.ChatEvent] = []
    try:
        for piece in pieces:
            events.extend(_collected(decoder.feed(piece), events))
        events.extend(_collected(decoder.close(), events))
    except Failure as failure:
        return events, failure
    return events, None


def _collected(source: Iterator[chat_pb2.ChatEvent], events: list[chat_pb2.ChatEvent]) -> list[chat_pb2.ChatEvent]:
    for one in source:
        events.append(one)
    return []


def chunkings(body: bytes) -> list[list[bytes]]:
    third = len(body) // 3
    return [[body], [body[i : i + 1] for i in range(len(body))], [body[:third], b"", body[third:]]]


# --- what is sent ---


def test_a_request_is_sent_as_it_came_but_for_the_model() -> None:
    body = (
        b'{"top_k":4e1,"messages":[{"role":"user","content":[{"type":"text","text":"Hi","x":null}],"name":"Al"}],"model":"auto","seed":7}'
    )
    wire = ADAPTER.encode(decode_request(body), "gpt-4o")
    assert json.loads(wire.body) == json.loads(body) | {"model": "gpt-4o"}
    assert (wire.path, wire.headers["accept"]) == ("/chat/completions", "application/json")
    assert b'"top_k":4e1' in wire.body


def test_a_streamed_request_always_asks_for_usage() -> None:
    assert json.loads(ADAPTER.encode(ASK_STREAM, "small").body)["stream_options"] == {"include_usage": True}
    assert ADAPTER.encode(ASK_STREAM, "small").headers["accept"] == "text/event-stream"


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ({"include_usage": False, "include_obfuscation": False}, {"include_usage": True, "include_obfuscation": False}),
        ({"include_usage": None, "x": [1.0]}, {"include_usage": True, "x": [1.0]}),
        (None, {"include_usage": True}),
    ],
)
def test_the_callers_stream_options_are_kept(sent: Any, arrives: Any) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "stream_options": sent}
    assert json.loads(ADAPTER.encode(decode_request(json.dumps(body).encode()), "m").body) == body | {"stream_options": arrives}


def test_a_whole_answer_is_asked_for_without_stream_options() -> None:
    assert "stream_options" not in json.loads(ADAPTER.encode(ASK, "small").body)


def test_encoding_leaves_the_request_alone() -> None:
    before = ASK_STREAM.SerializeToString(deterministic=True)
    ADAPTER.encode(ASK_STREAM, "other")
    assert ASK_STREAM.SerializeToString(deterministic=True) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KNOWN = frozenset(field.name.removesuffix("_json") for field in chat_pb2.ChatRequest.DESCRIPTOR.fields)


@given(extra=st.dictionaries(st.text().filter(lambda name: name not in KNOWN), JSON, max_size=4), is_stream=st.booleans(), text=st.text())
def test_nothing_but_model_and_stream_options_ever_differs(extra: dict[str, Any], is_stream: bool, text: str) -> None:
    body = extra | {"model": "auto", "messages": [{"role": "user", "content": text}], "stream": is_stream, "temperature": 0.5}
    sent = json.loads(ADAPTER.encode(decode_request(json.dumps(body).encode()), "target").body)
    options = {"stream_options": {"include_usage": True}} if is_stream else {}
    assert sent == body | {"model": "target"} | options


# --- whole answers ---


def test_a_whole_answer_is_one_completion() -> None:
    for pieces in chunkings(json.dumps(completion_json("Hello!") | {"system_fingerprint": "fp"}).encode()):
        [only], failure = read(ASK, pieces, "application/json")
        assert failure is None
        assert only.completion.choices[0].message.text == "Hello!"
        assert only.completion.usage.total_tokens == 7
        assert json.loads(only.completion.extra_json)["system_fingerprint"] == "fp"


def test_json_although_a_stream_was_asked_for_is_a_completion() -> None:
    [only], failure = read(ASK_STREAM, [json.dumps(completion_json("Hello!")).encode()], "application/json; charset=utf-8")
    assert failure is None
    assert only.WhichOneof("event") == "completion"


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"[]", b'{"id":"x"}', b'{"choices":[]}', b"\xff\xfe"])
def test_an_answer_that_is_no_completion_is_broken(body: bytes) -> None:
    events, failure = read(ASK, [body], "application/json")
    assert (events, failure and failure.kind) == ([], Kind.BROKEN)


def test_an_answer_cut_at_any_byte_is_broken() -> None:
    body = json.dumps(completion_json("Hello!")).encode()
    for end in range(len(body)):
        events, failure = read(ASK, [body[:end]], "application/json")
        assert (events, failure and failure.kind) == ([], Kind.BROKEN)


def test_an_answer_without_end_is_given_up() -> None:
    decoder = ADAPTER.decoder(ASK, Reply("application/json", "", 0))
    piece = bytes(MAX_COMPLETION_BYTES // 4)
    with pytest.raises(Failure, match="larger than"):
        for _ in range(5):
            decoder.feed(piece)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"message": "overloaded", "code": 502}, 502),
        ({"message": "slow down", "code": "429"}, 429),
        ({"message": "bad", "type": "invalid_request_error"}, 400),
        ({"message": "what"}, 0),
    ],
)
def test_an_error_with_status_200_is_an_error(error: dict[str, Any], status: int) -> None:
    events, failure = read(ASK, [json.dumps({"error": error}).encode()], "application/json")
    assert events == []
    assert failure is not None
    assert (failure.kind, failure.http_status, failure.message) == (Kind.REFUSED, status, error["message"])


# --- streams ---

WHOLE = chunk({"role": "assistant", "content": ""}) + chunk({"content": "Hé"}) + chunk({}, finish="stop") + USAGE + DONE


def test_a_stream_gives_the_same_events_in_any_chunking() -> None:
    results = [read(ASK_STREAM, pieces) for pieces in chunkings(WHOLE)]
    assert all(result == results[0] for result in results)
    events, failure = results[0]
    assert failure is None
    assert [text_format.MessageToString(one.chunk.choices[0].delta, as_one_line=True, as_utf8=True) for one in events[:3]] == [
        'role: ROLE_ASSISTANT text: ""',
        'text: "Hé"',
        "",
    ]
    assert events[2].chunk.choices[0].finish_reason == chat_pb2.FINISH_REASON_STOP
    assert (len(events[3].chunk.choices), events[3].chunk.usage.total_tokens) == (0, 7)


@given(cuts=st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_where_reads_are_cut_does_not_matter(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    assert read(ASK_STREAM, [WHOLE[a:b] for a, b in pairwise(edges)]) == read(ASK_STREAM, [WHOLE])


def test_events_that_arrived_together_are_given_together() -> None:
    decoder = ADAPTER.decoder(ASK_STREAM, Reply(SSE, "", 0))
    assert len(list(decoder.feed(chunk({"content": "a"}) + chunk({"content": "b"}) + b"data: {"))) == 2


def test_done_ends_a_stream_and_what_follows_is_ignored() -> None:
    decoder = ADAPTER.decoder(ASK_STREAM, Reply(SSE, "", 0))
    assert len(list(decoder.feed(chunk({"content": "a"}) + DONE + b"data: nonsense\n\n"))) == 1
    assert decoder.is_done
    assert list(decoder.close()) == []


@pytest.mark.parametrize("noise", [b": keep-alive\n\n", b"event: ping\n\n", b"data:\n\n", b"id: 1\nretry: 5\n\n", b"\n\n"])
def test_keep_alives_are_no_events(noise: bytes) -> None:
    assert read(ASK_STREAM, [noise + WHOLE.replace(b"\n\n", b"\n\n" + noise)]) == read(ASK_STREAM, [WHOLE])


@pytest.mark.parametrize(
    "end",
    [
        chunk({}, finish="stop"),
        chunk({}, finish="stop") + USAGE,
        chunk({}, finish="stop").rstrip(b"\n"),
        chunk({}, finish="a_reason_of_their_own"),
        DONE,
        b"data: [DONE]",
    ],
)
def test_a_stream_is_whole_with_done_or_with_every_finish_reason(end: bytes) -> None:
    _, failure = read(ASK_STREAM, [chunk({"content": "a"}) + end])
    assert failure is None


@pytest.mark.parametrize(
    ("n", "body"),
    [
        (1, b""),
        (1, b": keep-alive\n\n"),
        (1, chunk({"content": "a"})),
        (1, USAGE),
        (1, b"<html>busy</html>"),
        (2, chunk({"content": "a"}) + chunk({}, finish="stop")),
        (2, chunk({"content": "a"}) + chunk({"content": "b"}, index=1) + chunk({}, finish="stop")),
        (1, chunk({"content": "a"}) + chunk({}, finish="stop")[:-9]),
    ],
)
def test_a_stream_that_ends_too_early_was_cut(n: int, body: bytes) -> None:
    _, failure = read(chat_pb2.ChatRequest(stream=True, n=n), [body])
    assert failure is not None
    assert failure.kind is Kind.BROKEN


def test_a_stream_with_every_choice_finished_is_whole() -> None:
    body = chunk({"content": "a"}) + chunk({"content": "b"}, index=1) + chunk({}, finish="stop", index=1) + chunk({}, finish="length")
    assert read(chat_pb2.ChatRequest(stream=True, n=2), [body])[1] is None


@pytest.mark.parametrize("event_line", [b"", b"event: error\n"])
def test_an_error_event_ends_a_stream_after_the_events_before_it(event_line: bytes) -> None:
    error = event_line + event({"error": {"message": "overloaded", "type": "server_error", "code": 503}})
    for pieces in chunkings(chunk({"content": "a"}) + error):
        events, failure = read(ASK_STREAM, pieces)
        assert len(events) == 1
        assert failure is not None
        assert (failure.kind, failure.message, failure.http_status, failure.type) == (Kind.REFUSED, "overloaded", 503, "server_error")


def test_an_event_that_is_no_json_breaks_the_stream() -> None:
    events, failure = read(ASK_STREAM, [chunk({"content": "a"}) + b"data: {oops}\n\n"])
    assert len(events) == 1
    assert failure is not None
    assert failure.kind is Kind.BROKEN


# --- errors ---


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":{"message":"m","type":"t","param":"p","code":"c"}}', ("m", "t", "p", "c")),
        (b'{"error":{"message":"m","type":"t","param":null,"code":7}}', ("m", "t", "", "7")),
        (b'{"error":"m"}', ("m", "", "", "")),
        (b'[{"error":{"message":"m","code":400}}]', ("m", "", "", "400")),
        (b'{"message":"m","type":"t"}', ("m", "t", "", "")),
        (b'{"detail":"m"}', ("m", "", "", "")),
        (b'{"detail":[{"loc":["body"],"msg":"m"}]}', ('[{"loc":["body"],"msg":"m"}]', "", "", "")),
        (b'{"error":{"status":1}}', ('{"error":{"status":1}}', "", "", "")),
        (b"<html><head><title>502 Bad\n Gateway</title></head><body>x</body></html>", ("502 Bad Gateway", "", "", "")),
        (b"<html><body>x</body></html>", ("HTTP 418", "", "", "")),
        (b"  plain\n text ", ("plain text", "", "", "")),
        (b"", ("HTTP 418", "", "", "")),
        (b"[]", ("[]", "", "", "")),
        (b"\xff\x00", ("\ufffd\x00", "", "", "")),
        (b"[" * 100_000, ("[" * 100_000, "", "", "")),
    ],
)
def test_the_vendors_words_are_kept_whatever_the_body(body: bytes, words: tuple[str, str, str, str]) -> None:
    failure = ADAPTER.decode_error(418, body)
    assert (failure.message, failure.type, failure.param, failure.code) == words
    assert (failure.kind, failure.http_status) == (Kind.REFUSED, 418)


# --- models ---


def test_models_are_read_from_both_shapes_of_list() -> None:
    entries = b'[{"id":"a","owned_by":"me","created":5},{"id":"b","created":"soon"},{"name":"c"},7]'
    for body in (b'{"object":"list","data":' + entries + b"}", entries):
        assert [(model.id, model.owned_by, model.created) for model in ADAPTER.decode_models(body)] == [("a", "me", 5), ("b", "", 0)]


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b'{"data":{}}', b"3"])
def test_what_is_no_list_of_models_is_broken(body: bytes) -> None:
    with pytest.raises(Failure):
        ADAPTER.decode_models(body)
