"""Anthropic's dialect: what is sent, and what is read from answers of every kind, in any chunking."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.anthropic import AnthropicAdapter
from services.dispatch.failure import Failure, Kind
from services.wire.assemble import CompletionAssembler
from services.wire.errors import InvalidRequest
from services.wire.openai import encode_completion
from tests.adapters.reading import CREATED, delta_fields, json_of, read, read_all, request_of
from tests.fakes.anthropic_upstream import (
    SSE,
    AnthropicUpstream,
    block,
    end,
    error_body,
    event,
    message_json,
    start,
    stream_parts,
    text_block,
)

ADAPTER = AnthropicAdapter()
ASK = request_of({})
ASK_STREAM = request_of({"stream": True})
PIXEL = base64.b64encode(b"\x89PNG fake").decode()
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "weather", "description": "Says the weather.", "parameters": PARAMETERS}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
THINKING = {"type": "thinking", "thinking": "Let me see.", "signature": "EqQB"}
REDACTED = {"type": "redacted_thinking", "data": "Eo8C"}
USE = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Köln"}}
ASSISTANT_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
WITH_TOOLS = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": [ASSISTANT_CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "12 degrees"},
    {"role": "user", "content": "And tomorrow?"},
]


def sent(body: dict[str, Any], model: str = "small") -> dict[str, Any]:
    encoded: dict[str, Any] = json.loads(ADAPTER.encode(request_of(body), model).body)
    return encoded


def warnings(body: dict[str, Any]) -> tuple[str, ...]:
    return ADAPTER.encode(request_of(body), "small").warnings


def refused(body: dict[str, Any], model: str = "small") -> str:
    with pytest.raises(Failure) as raised:
        ADAPTER.encode(request_of(body), model)
    assert raised.value.kind is Kind.UNSUPPORTED
    return raised.value.param


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def image(url: str, **members: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url} | members}


def completion(*blocks: dict[str, Any], reason: str = "end_turn", **members: Any) -> Any:
    body = json.dumps(message_json(blocks, reason, **members)).encode()
    (event,), failure = read_all(ADAPTER, ASK, body, "application/json")
    assert failure is None
    return event


def broken(body: bytes, *, is_stream: bool = True) -> Failure:
    _, failure = read(ADAPTER, ASK_STREAM if is_stream else ASK, [body], SSE if is_stream else "application/json")
    assert failure is not None
    return failure


# --- what is sent ---


def test_key_and_version_are_in_the_headers() -> None:
    assert ADAPTER.authorization("k") == {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    assert ADAPTER.encode(ASK_STREAM, "small").headers == {"content-type": "application/json", "accept": "text/event-stream"}


def test_what_both_call_alike_goes_as_it_is() -> None:
    body = {"temperature": 1.5, "top_p": 0.9, "stop": ["a", "b"]}
    assert sent(body) | {"temperature": 1.5, "top_p": 0.9, "stop_sequences": ["a", "b"]} == sent(body)


def test_a_bound_is_always_sent_and_the_newer_name_wins() -> None:
    assert sent({})["max_tokens"] == 4096
    assert sent({"max_tokens": 10})["max_tokens"] == 10
    assert sent({"max_tokens": 10, "max_completion_tokens": 20})["max_tokens"] == 20


def test_system_messages_at_any_place_become_the_system_prompt() -> None:
    hi = {"role": "user", "content": "Hi"}
    later = {"role": "developer", "content": [{"type": "text", "text": "B", "cache_control": {"type": "ephemeral"}}]}
    body = sent({"messages": [{"role": "system", "content": "A"}, hi, later]})
    assert body["system"] == [{"type": "text", "text": "A"}, {"type": "text", "text": "B", "cache_control": {"type": "ephemeral"}}]
    assert body["messages"] == [hi]
    assert sent({"messages": [{"role": "system", "content": "A"}]})["messages"] == [{"role": "user", "content": "A"}]
    assert refused({"system": "A"}) == "system"


def test_results_that_follow_each_other_are_one_turn() -> None:
    results = [{"role": "tool", "tool_call_id": id, "content": id.upper()} for id in ("a", "b")]
    content = sent({"messages": results})["messages"][0]["content"]
    assert [(part["tool_use_id"], part["content"]) for part in content] == [("a", "A"), ("b", "B")]


def test_thoughts_with_signatures_lead_the_turn_and_others_cannot_go_back() -> None:
    turn = {"role": "assistant", "content": "", "reasoning_content": "x", "thinking_blocks": [THINKING, REDACTED]}
    body = {"messages": [turn | {"tool_calls": [ASSISTANT_CALL]}]}
    assert sent(body)["messages"][0]["content"] == [THINKING, REDACTED, USE]
    assert not warnings(body)
    (warning,) = warnings({"messages": [{"role": "assistant", "content": "So.", "reasoning_content": "x"}]})
    assert warning.startswith("messages[0].reasoning_content:")


@pytest.mark.parametrize(
    ("model", "budgeted"),
    [
        ("claude-3-7-sonnet-20250219", True),
        ("claude-opus-4-20250514", True),
        ("claude-sonnet-4-5", True),
        ("claude-haiku-4-5-20251001", True),
        ("claude-opus-4-6", False),
        ("claude-opus-4-8", False),
        ("claude-sonnet-5", False),
    ],
)
def test_effort_is_a_budget_where_models_know_nothing_else(model: str, budgeted: bool) -> None:
    body = sent({"reasoning_effort": "high"}, model)
    assert body["max_tokens"] == 4096 + 24576
    if budgeted:
        assert body["thinking"] == {"type": "enabled", "budget_tokens": 24576}
        assert "output_config" not in body
    else:
        assert body["thinking"]["type"] == "adaptive"
        assert body["output_config"] == {"effort": "high"}


def test_a_budget_leaves_room_for_the_answer() -> None:
    model = "claude-sonnet-4-5"
    assert sent({"reasoning_effort": "high", "max_tokens": 4000}, model)["thinking"]["budget_tokens"] == 2000
    assert sent({"reasoning_effort": "high", "max_tokens": 1025}, model)["thinking"]["budget_tokens"] == 1024
    assert refused({"reasoning_effort": "high", "max_tokens": 1024}, model) == "reasoning_effort"
    assert refused({"reasoning_effort": "low", "temperature": 0.5}, model) == "temperature"
    assert refused({"reasoning_effort": "low", "tools": [TOOL], "tool_choice": "required"}, model) == "tool_choice"
    assert sent({"reasoning_effort": "none"})["thinking"] == {"type": "disabled"}


def test_the_clients_own_thinking_and_config_win() -> None:
    own = {"type": "enabled", "budget_tokens": 2000}
    body = {"thinking": own, "reasoning_effort": "high", "top_k": 5, "output_config": {"effort": "max"}}
    assert sent(body)["thinking"] == own
    assert sent(body)["max_tokens"] == 6096
    assert (sent(body)["top_k"], sent(body)["output_config"]) == (5, {"effort": "max"})
    assert len(warnings(body)) == 1


@pytest.mark.parametrize(
    ("choice", "parallel", "said"),
    [
        ("none", None, {"type": "none"}),
        ("auto", None, {"type": "auto"}),
        ("required", True, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
        ({"type": "function", "function": {"name": "f"}}, None, {"type": "tool", "name": "f"}),
    ],
)
def test_every_choice_of_tools(choice: Any, parallel: bool | None, said: dict[str, Any]) -> None:
    assert sent({"tools": [TOOL], "tool_choice": choice, "parallel_tool_calls": parallel})["tool_choice"] == said


def test_tools_keep_what_is_native_in_them() -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    strict = TOOL | {"function": {"name": "f", "strict": True}, "cache_control": {"type": "ephemeral"}}
    empty = {"type": "object", "properties": {}}
    assert sent({"tools": [strict, search]})["tools"] == [
        {"name": "f", "strict": True, "input_schema": empty, "cache_control": {"type": "ephemeral"}},
        search,
    ]


def test_marks_for_the_cache_stay_where_they_are_or_fall_to_the_last_block() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    result = {
        "role": "tool",
        "tool_call_id": "c1",
        "content": [{"type": "text", "text": "x"}, image("https://a.example/b.png")],
        "is_error": True,
    }
    body = sent(
        {"messages": [{"role": "user", "content": "Hi", **mark}, result | mark, user({"type": "text", "text": "y", **mark})["messages"][0]]}
    )
    first, second, third = (message["content"] for message in body["messages"])
    assert first == [{"type": "text", "text": "Hi", **mark}]
    assert third == [{"type": "text", "text": "y", **mark}]
    shown = {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}}
    content = [{"type": "text", "text": "x"}, shown]
    assert second == [{"type": "tool_result", "tool_use_id": "c1", "content": content, "is_error": True, **mark}]


def test_files_become_documents() -> None:
    pdf = {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PIXEL}"}}
    text = {"type": "file", "file": {"file_data": f"data:text/plain;base64,{base64.b64encode(b'Hi').decode()}"}}
    kept = {"type": "file", "file": {"file_id": "file_1"}}
    sources = [part["source"] for part in sent(user(pdf, text, kept))["messages"][0]["content"]]
    assert sources == [
        {"type": "base64", "media_type": "application/pdf", "data": PIXEL},
        {"type": "text", "media_type": "text/plain", "data": "Hi"},
        {"type": "file", "file_id": "file_1"},
    ]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"reasoning_effort": "vast"}, "reasoning_effort"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        (
            user({"type": "text", "text": "x"}, {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}),
            "messages[0].content[1]",
        ),
        (user(image("data:,x")), "messages[0].content[0]"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]}
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    assert refused(body) == param


def test_what_is_harmless_is_left_out_with_a_warning() -> None:
    body = {"seed": 1, "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s", "service_tier": "flex"}
    assert {warning.split(":")[0] for warning in warnings(body)} == {"seed", "metadata.a", "user", "service_tier"}
    assert sent(body)["metadata"] == {"user_id": "s"}


# --- what is read ---


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
        ("a_newer_one", "a_newer_one"),
    ],
)
def test_every_reason_to_stop(native: str, reason: str) -> None:
    choice = completion({"type": "text", "text": "x"}, reason=native)["choices"][0]
    events, _ = read_all(ADAPTER, ASK_STREAM, start() + text_block(0, "x") + end(native), SSE)
    for finished in (choice, events[-2]["choices"][0]):
        assert (finished["finish_reason"], finished["native_finish_reason"]) == (reason, native)


def test_the_prompt_includes_what_the_cache_read_and_wrote() -> None:
    counts = {"input_tokens": 1, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 300, "output_tokens": 9}
    by_time = {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100}
    usage = completion(
        usage=counts | {"cache_creation": by_time, "output_tokens_details": {"thinking_tokens": 4}, "service_tier": "standard"}
    )["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (321, 9, 330)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 20, "cache_write_tokens": 300, "cache_write_1h_tokens": 100}
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 4}
    assert (usage["cache_creation_input_tokens"], usage["cache_creation"], usage["service_tier"]) == (300, by_time, "standard")


def test_signed_thoughts_come_and_go_back_unchanged() -> None:
    message = completion(THINKING, REDACTED, USE, reason="tool_use")["choices"][0]["message"]
    assert message["reasoning_content"] == "Let me see."
    assert sent({"messages": [message]})["messages"][0]["content"] == [THINKING, REDACTED, USE]


def test_a_stream_gives_the_same_message_as_a_whole_answer() -> None:
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}
    body = start()
    body += block(0, THINKING | {"thinking": "", "signature": ""}, {"type": "thinking_delta", "thinking": "Let me see."})[
        : -len(stop := event("content_block_stop", index=0))
    ]
    body += event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "EqQB"}) + stop
    body += block(1, REDACTED) + block(2, search | {"input": {}}, {"type": "input_json_delta", "partial_json": '{"query": "x"}'})
    body += text_block(3, "Lo", "ok") + block(4, USE | {"input": {}}, {"type": "input_json_delta", "partial_json": '{"city":"Köln"}'})
    events, failure = read(ADAPTER, ASK_STREAM, [body + end("tool_use")], SSE)
    assert failure is None
    whole = completion(THINKING, REDACTED, search, {"type": "text", "text": "Look"}, USE, reason="tool_use")["choices"][0]
    kept: dict[str, list[Any]] = {}
    for event_ in events:
        for choice in json_of(event_)["choices"]:
            for name in ("thinking_blocks", "content_blocks"):
                kept.setdefault(name, []).extend(choice["delta"].get(name, []))
    assert kept == {name: whole["message"][name] for name in kept}
    assembler = CompletionAssembler()
    for event_ in events:
        assembler.add(event_.chunk)
    message = json.loads(encode_completion(assembler.completion()))["choices"][0]["message"]
    for name in ("content", "reasoning_content"):
        assert message[name] == whole["message"][name]
    assert message["tool_calls"][0]["function"]["name"] == "weather"
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "Köln"}


def test_pieces_of_arguments_are_passed_on_at_once() -> None:
    body = start() + event("content_block_start", index=0, content_block=USE | {"input": {}})
    piece = event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"ci'})
    events, _ = read(ADAPTER, ASK_STREAM, [body, piece], SSE)
    assert delta_fields(events)[-1] == {"tool_calls": [{"index": 0, "function": {"arguments": '{"ci'}}]}


def test_a_call_without_arguments_has_an_empty_object() -> None:
    uses = block(0, USE | {"input": {}}, {"type": "input_json_delta", "partial_json": ""}) + block(1, USE | {"id": "c2", "input": {}})
    events, failure = read(ADAPTER, ASK_STREAM, [start() + uses + end("tool_use")], SSE)
    pieces = [delta["tool_calls"][0] for delta in delta_fields(events) if "tool_calls" in delta]
    assert failure is None
    assert [(piece["index"], piece["function"].get("arguments")) for piece in pieces] == [(0, ""), (0, "{}"), (1, ""), (1, "{}")]


def test_new_kinds_of_events_and_pieces_do_no_harm() -> None:
    text = block(0, {"type": "text", "text": ""}, {"type": "new_delta", "x": 1}, {"type": "text_delta", "text": "Hi"})
    events, failure = read_all(ADAPTER, ASK_STREAM, start() + event("new_event") + text + end(), SSE)
    assert failure is None
    assert events[1]["choices"][0]["delta"]["content_deltas"] == [{"index": 0, "type": "new_delta", "x": 1}]
    assert [event["choices"][0]["delta"].get("content") for event in events[:3]] == ["", None, "Hi"]


@pytest.mark.parametrize(
    ("status", "type"), [(429, "rate_limit_error"), (529, "overloaded_error"), (413, "request_too_large"), (400, "invalid_request_error")]
)
def test_errors_keep_the_vendors_words_wherever_they_stand(status: int, type: str) -> None:
    body = error_body(status, "no")
    inside = broken(start() + b"event: error\ndata: " + body + b"\n\n")
    for failure in (ADAPTER.decode_error(status, body), inside, broken(body, is_stream=False)):
        assert (failure.kind, failure.message, failure.http_status, failure.type) == (Kind.REFUSED, "no", status, type)


def test_a_page_is_an_error_by_its_title() -> None:
    assert ADAPTER.decode_error(502, b"<html><title>Bad Gateway</title></html>").message == "Bad Gateway"


@pytest.mark.parametrize(
    "body",
    [
        start() + event("message_stop"),
        end(),
        start() + start(),
        start() + event("content_block_start", index=0, content_block={"type": "text", "text": ""}) + end(),
        start() + event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x"}),
        start() + event("content_block_delta", index=None, delta=[]),
        start() + b"data: {\n\n",
    ],
)
def test_a_stream_in_disorder_is_broken(body: bytes) -> None:
    assert broken(body).kind is Kind.BROKEN


def test_a_stream_cut_at_any_byte_is_broken_and_never_finished() -> None:
    parts = stream_parts("Hel", "lo!")
    body = parts.opening + b"".join(parts.pieces) + parts.ending
    for length in range(len(body) - 2):
        events, failure = read(ADAPTER, ASK_STREAM, [body[:length]], SSE)
        assert failure is not None, body[:length]
        assert failure.kind is Kind.BROKEN
        assert not any(choice.finish_reason for event in events for choice in event.chunk.choices)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["text", "tool_use", "end_turn", "text_delta"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["type", "id", "name", "input", "text", "index", "usage"]), inner),
    max_leaves=6,
)


@given(st.sampled_from(["content", "usage", "stop_reason", "id", "model", "type"]), JSON)
def test_any_json_in_any_place_of_an_answer_is_an_answer_or_a_failure(name: str, value: Any) -> None:
    body = json.dumps(message_json([USE]) | {name: value}).encode()
    events, failure = read(ADAPTER, ASK, [body], "application/json")
    assert bool(events) != bool(failure)
    if name == "stop_reason" and value != "end_turn":
        assert not any(choice.finish_reason == chat_pb2.FINISH_REASON_STOP for event in events for choice in event.completion.choices)


@given(st.sampled_from(["message", "index", "content_block", "delta", "usage", "type"]), JSON, st.integers(0, 6))
def test_any_json_in_any_place_of_a_stream_is_an_answer_or_a_failure(name: str, value: Any, place: int) -> None:
    parts = stream_parts("Hel")
    events = (parts.opening + parts.pieces[0] + parts.ending).split(b"\n\n")[:-1]
    head, _, data = events[place].partition(b"data: ")
    events[place] = head + b"data: " + json.dumps(json.loads(data) | {name: value}).encode()
    _, failure = read(ADAPTER, ASK_STREAM, [b"\n\n".join(events) + b"\n\n"], SSE)
    assert failure is None or failure.kind in (Kind.BROKEN, Kind.REFUSED)


@given(
    st.sampled_from(["tool_choice", "response_format", "thinking", "metadata", "service_tier", "output_config", "thinking_blocks"]), JSON
)
def test_any_json_in_a_request_is_said_or_refused(name: str, value: Any) -> None:
    said = {"messages": [{"role": "assistant", "content": "x", name: value}]} if name == "thinking_blocks" else {name: value}
    try:
        request = request_of(said | {"tools": [TOOL]})
    except InvalidRequest:
        return
    try:
        ADAPTER.encode(request, "claude-sonnet-4-5")
    except Failure as failure:
        assert failure.kind is Kind.UNSUPPORTED
        assert failure.param


def test_models_are_listed_with_their_dates() -> None:
    listing = AnthropicUpstream().listing(["a", "b"])
    listing["data"][1]["created_at"] = "soon"
    models = ADAPTER.decode_models(json.dumps(listing).encode())
    assert [(model.id, model.owned_by, model.created) for model in models] == [("a", "anthropic", CREATED), ("b", "anthropic", 0)]
    with pytest.raises(Failure):
        ADAPTER.decode_models(b'{"data": 1}')
