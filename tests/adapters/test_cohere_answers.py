"""Cohere's dialect: what is read from answers of every kind, in any chunking."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulegate.chat.v1 import chat_pb2
from services.dispatch.failure import Failure, Kind
from services.wire.assemble import CompletionAssembler
from tests.adapters.reading import ANYTHING, CREATED, delta_fields, json_of, read, read_all
from tests.adapters.test_cohere import ADAPTER, ASK, ASK_STREAM, CITATION
from tests.fakes.cohere_upstream import (
    ID,
    SSE,
    CohereUpstream,
    block_start,
    call,
    end,
    error_body,
    event,
    message_event,
    plan,
    start,
    stream_parts,
    text,
    text_block,
    thinking,
    usage_json,
    whole,
    whole_json,
)

USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "billed_units": {"input_tokens": 3, "output_tokens": 2},
}


def test_a_whole_answer_is_one_completion() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "Hm."},
        text_block("Hel"),
        text_block("lo!"),
        {"type": "new", "x": 1.0},
    ]
    body = whole_json(*blocks, message={"citations": [CITATION]}, usage=usage_json(cached_tokens=4), x=1.0)
    [answer], failure = read_all(ADAPTER, ASK, json.dumps(body).encode(), "application/json")
    assert failure is None
    message = {"role": "assistant", "content": "Hello!", "reasoning_content": "Hm.", "citations": [CITATION]}
    assert answer == {
        "id": ID,
        "object": "chat.completion",
        "created": CREATED,
        "model": "small",
        "choices": [
            {
                "index": 0,
                "message": message | {"content_blocks": [blocks[3]]},
                "finish_reason": "stop",
                "native_finish_reason": "COMPLETE",
            }
        ],
        "usage": USAGE | {"prompt_tokens_details": {"cached_tokens": 4}},
        "x": 1.0,
    }


def test_a_stream_says_role_texts_reason_and_usage() -> None:
    body = start() + block_start("thinking") + thinking("Hm.") + block_start() + text("Hé") + text("llo") + end()
    events, failure = read(ADAPTER, ASK_STREAM, [body], SSE)
    assert failure is None
    assert delta_fields(events) == [
        {"role": "ROLE_ASSISTANT", "text": ""},
        {"reasoning_content": "Hm."},
        {"text": "Hé"},
        {"text": "llo"},
        {},
    ]
    assert events[-2].chunk.choices[0].finish_reason == chat_pb2.FINISH_REASON_STOP
    assert json_of(events[-1])["usage"] == USAGE
    assert {(event.chunk.id, event.chunk.created, event.chunk.model) for event in events} == {(ID, CREATED, "small")}


def test_calls_come_in_pieces_as_they_are_made() -> None:
    body = (
        start()
        + plan("I shall ")
        + plan("look.")
        + call(0, "c1", "weather", '{"city":', '"Köln"}')
        + call(1, "c2", "clock")
        + end("TOOL_CALL")
    )
    events, failure = read(ADAPTER, ASK_STREAM, [body], SSE)
    assert failure is None
    assert [fields.get("reasoning_content") for fields in delta_fields(events)[1:3]] == ["I shall ", "look."]
    calls = [call for event in events for choice in event.chunk.choices for call in choice.delta.tool_calls]
    assert [(call.index, call.id, call.function.name, call.function.arguments) for call in calls] == [
        (0, "c1", "weather", ""),
        (0, "", "", '{"city":'),
        (0, "", "", '"Köln"}'),
        (1, "c2", "clock", ""),
    ]
    assert events[-2].chunk.choices[0].finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS


def test_each_piece_is_passed_on_at_once() -> None:
    decoder_events, _ = read(ADAPTER, ASK_STREAM, [start() + call(0, "c1", "weather", '{"ci')], SSE)
    assert decoder_events[-1].chunk.choices[0].delta.tool_calls[0].function.arguments == '{"ci'


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("COMPLETE", "stop"),
        ("STOP_SEQUENCE", "stop"),
        ("MAX_TOKENS", "length"),
        ("TOOL_CALL", "tool_calls"),
        ("A_NEW_WORD", "A_NEW_WORD"),
    ],
)
@pytest.mark.parametrize("is_stream", [True, False])
def test_every_reason_is_kept_in_coheres_word(native: str, reason: str, is_stream: bool) -> None:
    body = start() + end(native) if is_stream else json.dumps(whole_json(text_block("a"), reason=native)).encode()
    events, failure = read_all(ADAPTER, ASK_STREAM if is_stream else ASK, body, SSE if is_stream else "application/json")
    assert failure is None
    [choice] = [choice for event in events for choice in event["choices"] if choice["finish_reason"]]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (reason, native)


@pytest.mark.parametrize(("native", "status"), [("ERROR", 500), ("TIMEOUT", 504)])
@pytest.mark.parametrize("is_stream", [True, False])
def test_an_answer_that_ends_in_an_error_is_one(native: str, status: int, is_stream: bool) -> None:
    body = (
        start() + text("a") + end(native, error="too hot") if is_stream else json.dumps(whole_json(reason=native, error="too hot")).encode()
    )
    events, failure = read_all(ADAPTER, ASK_STREAM if is_stream else ASK, body, SSE if is_stream else "application/json")
    assert failure == {"kind": "REFUSED", "message": "too hot", "http_status": status, "code": native}
    assert not any(choice["finish_reason"] for event in events for choice in event["choices"])


def test_probabilities_are_openais() -> None:
    items = [{"text": "a", "token_ids": [1], "logprobs": [-0.5]}, {"text": "é", "token_ids": [2, 3], "logprobs": [-1, -0.25]}]
    expected = [
        {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [], "token_ids": [1]},
        {"token": "é", "logprob": -1.25, "bytes": [0xC3, 0xA9], "top_logprobs": [], "token_ids": [2, 3]},
    ]
    body = json.dumps(whole_json(text_block("aé"), logprobs=items)).encode()
    [answer], _ = read_all(ADAPTER, ASK, body, "application/json")
    assert answer["choices"][0]["logprobs"] == {"content": expected, "refusal": None}
    events, _ = read_all(ADAPTER, ASK_STREAM, start() + text("a", logprobs=items[0]) + end(), SSE)
    assert events[1]["choices"][0]["logprobs"] == {"content": expected[:1], "refusal": None}


def test_stream_and_whole_say_the_same() -> None:
    assembler = CompletionAssembler()
    arguments = ('{"city":', '"Köln"}')
    citation = message_event("citation-start", {"citations": CITATION}, index=0) + event("citation-end", index=0)
    body = (
        start() + thinking("Hm.") + text("Hel") + text("lo") + citation + citation + call(0, "c1", "weather", *arguments) + end("TOOL_CALL")
    )
    for one in read(ADAPTER, ASK_STREAM, [body], SSE)[0]:
        assembler.add(one.chunk)
    calls = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "".join(arguments)}}]
    said = {"tool_calls": calls, "citations": [CITATION, CITATION]}
    blocks = [{"type": "thinking", "thinking": "Hm."}, text_block("Hello")]
    [only], _ = read(ADAPTER, ASK, [json.dumps(whole_json(*blocks, reason="TOOL_CALL", message=said)).encode()], "application/json")
    assert json_of(chat_pb2.ChatEvent(completion=assembler.completion())) == json_of(only)


def test_usage_falls_back_on_what_is_billed() -> None:
    billed = {"billed_units": {"input_tokens": 3, "output_tokens": 2}}
    [answer], _ = read_all(ADAPTER, ASK, json.dumps(whole_json(text_block("a"), usage=billed)).encode(), "application/json")
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (3, 2)
    events, _ = read_all(ADAPTER, ASK_STREAM, start() + end(usage=None), SSE)
    assert not any(event.get("usage") for event in events)


# --- what goes wrong ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        start() + text("a"),
        start() + text("a") + end()[:-9],
        b"<html>busy</html>",
        start() + b"data: [DONE]\n\n",
    ],
)
def test_a_stream_that_ends_too_early_was_cut(body: bytes) -> None:
    assert_broken(body)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"data: []\n\n",
        b"data: {}\n\n",
        event("message-end"),
        end(None),  # type: ignore[arg-type]
        end(usage={"tokens": {"input_tokens": -1}}),
        end(usage={"tokens": {"input_tokens": 1.5}}),
        end(usage={"tokens": {"input_tokens": 1 << 70}}),
        end(usage=[]),
        message_event("content-delta", {"content": {"text": 5}}),
        message_event("content-delta", {"content": []}),
        message_event("content-delta", {"content": {"text": "a"}}, logprobs={"text": "a", "logprobs": ["x"]}),
        message_event("tool-call-start", {"tool_calls": {"id": "c", "function": {}}}, index=0),
        message_event("tool-call-delta", {"tool_calls": {"function": {"arguments": "{"}}}, index=0),
        message_event("tool-call-start", {"tool_calls": {"id": "c", "function": {"name": "f"}}}, index=-1),
        text("a").replace(b'"a"', b'"\xff"'),
        text("a").replace(b'"a"', b'"\\ud800"'),
    ],
)
def test_a_stream_that_makes_no_sense_is_broken(nonsense: bytes) -> None:
    assert_broken(start() + nonsense + end())


def assert_broken(body: bytes) -> None:
    events, failure = read(ADAPTER, ASK_STREAM, [body], SSE)
    assert failure is not None
    assert failure.kind is Kind.BROKEN
    assert not any(choice.finish_reason for event in events for choice in event.chunk.choices)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"<html>", b"{}", b'{"finish_reason":"COMPLETE","message":[]}', b'{"message":{}}'])
def test_a_whole_answer_that_is_none_is_broken(body: bytes) -> None:
    events, failure = read(ADAPTER, ASK, [body], "application/json")
    assert (events, failure and failure.kind) == ([], Kind.BROKEN)


def test_a_missing_last_blank_line_is_forgiven_and_what_follows_the_end_is_ignored() -> None:
    parts = stream_parts("a")
    expected = read_all(ADAPTER, ASK_STREAM, parts.opening + parts.pieces[0] + parts.ending, SSE)
    assert expected[1] is None
    for change in (parts.ending.rstrip(), parts.ending + b"data: nonsense\n\n", parts.ending.replace(b"\n", b"\r\n")):
        assert read_all(ADAPTER, ASK_STREAM, parts.opening + parts.pieces[0] + change, SSE) == expected


def test_what_says_nothing_is_no_event() -> None:
    body = start() + block_start() + event("debug", prompt="x") + b": ping\n\n" + event("content-end", index=0) + text("") + plan("")
    assert len(read(ADAPTER, ASK_STREAM, [body], SSE)[0]) == 1


@pytest.mark.parametrize("error", [b"data: " + error_body(200, "too hot") + b"\n\n", event("error", message="too hot")])
def test_an_error_in_a_stream_is_an_error(error: bytes) -> None:
    events, failure = read(ADAPTER, ASK_STREAM, [start() + text("a") + error], SSE)
    assert failure is not None
    assert (failure.kind, failure.message, failure.http_status, len(events)) == (Kind.REFUSED, "too hot", 500, 2)


def test_json_although_a_stream_was_asked_for_is_an_answer_or_an_error() -> None:
    [answer], _ = read_all(ADAPTER, ASK_STREAM, whole("Hello!"), "application/json; charset=utf-8")
    assert answer["choices"][0]["message"]["content"] == "Hello!"
    assert read_all(ADAPTER, ASK, error_body(200, "no"), "application/json")[1] == {"kind": "REFUSED", "message": "no", "http_status": 500}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (error_body(429, "You are using a Trial key"), "You are using a Trial key"),
        (b'{"error":{"message":"m"}}', "m"),
        (b'{"message":["a"]}', '{"message":["a"]}'),
        (b"<html><title>502</title></html>", "502"),
        (b"", "HTTP 429"),
    ],
)
def test_the_vendors_words_are_kept_whatever_the_body(body: bytes, message: str) -> None:
    failure = ADAPTER.decode_error(429, body)
    assert (failure.kind, failure.http_status, failure.message) == (Kind.REFUSED, 429, message)


@settings(deadline=None)
@given(data=st.data())
def test_no_mutation_of_a_stream_crashes_or_stops_falsely(data: st.DataObject) -> None:
    body = bytearray(start() + thinking("x") + text("a") + call(0, "c", "f", "{}") + end("COMPLETE"))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    spoiled = bytes(body[: data.draw(st.integers(0, len(body)))])
    events, failure = read(ADAPTER, ASK_STREAM, [spoiled], SSE)
    assert failure is None or failure.kind in (Kind.BROKEN, Kind.REFUSED)
    for one in events:
        assert one.SerializeToString()
        if any(choice.finish_reason for choice in one.chunk.choices):
            assert b"COMPLETE" in spoiled


TYPES = [
    "message-start",
    "content-start",
    "content-delta",
    "tool-plan-delta",
    "tool-call-start",
    "tool-call-delta",
    "citation-start",
    "message-end",
]
PLACES = ["id", "index", "finish_reason", "message", "usage", "logprobs", "delta", "error"]
INNER = ["role", "content", "tool_calls", "tool_plan", "citations"]


@settings(deadline=None)
@given(
    type=st.sampled_from(TYPES),
    outer=st.dictionaries(st.sampled_from(PLACES), ANYTHING),
    inner=st.dictionaries(st.sampled_from(INNER), ANYTHING),
)
def test_any_json_in_any_place_is_an_answer_or_a_failure(type: str, outer: dict[str, Any], inner: dict[str, Any]) -> None:
    for request, content_type, body in (
        (ASK, "application/json", json.dumps(whole_json(text_block("a"), message=inner) | outer).encode()),
        (ASK_STREAM, SSE, event(type, **outer | {"delta": {"message": inner}})),
        (ASK_STREAM, SSE, event(type, **outer)),
    ):
        events, failure = read(ADAPTER, request, [body], content_type)
        assert failure is not None or request is ASK or type == "message-end"
        for one in events:
            assert json_of(one)


# --- models ---


def test_models_are_listed_by_name() -> None:
    body = json.dumps(CohereUpstream().listing(["command-a"])).encode()
    assert [(model.id, model.owned_by) for model in ADAPTER.decode_models(body)] == [("command-a", "cohere")]
    assert [model.id for model in ADAPTER.decode_models(b'{"models":[{"name":"a"},{"name":7},{},7]}')] == ["a"]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"models":{}}', b"<html>"])
def test_what_is_no_list_of_models_is_broken(body: bytes) -> None:
    with pytest.raises(Failure):
        ADAPTER.decode_models(body)
