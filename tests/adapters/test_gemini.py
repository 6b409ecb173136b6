"""What is read from Google Gemini's answers: whole, streamed in any chunking, cut, spoiled and refused."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.base import Reply
from services.dispatch.failure import Failure, Kind
from services.wire.assemble import CompletionAssembler
from services.wire.openai import encode_completion
from tests.adapters import golden, reading
from tests.adapters.gemini_asking import ADAPTER, sent
from tests.adapters.reading import Result, chunkings, json_of
from tests.fakes.gemini_upstream import (
    SSE,
    GeminiUpstream,
    answer_json,
    candidate_json,
    error_json,
    event,
    said,
    stream_parts,
    usage_json,
    whole,
)

GOLDEN = golden.ROOT / "gemini"


def read(pieces: list[bytes], *, n: int = 1, is_stream: bool = True) -> Result:
    return reading.read(ADAPTER, chat_pb2.ChatRequest(stream=is_stream, n=n), pieces, SSE)


def read_whole(body: Any) -> chat_pb2.ChatCompletion:
    [only], failure = read([json.dumps(body).encode()], is_stream=False)
    assert failure is None
    return only.completion


def said_json(events: list[chat_pb2.ChatEvent], failure: Failure | None) -> list[Any]:
    """The events as a client would see them, and how the stream failed."""
    chunks = [json_of(one) for one in events]
    if failure is None:
        return chunks
    ending = {"kind": failure.kind.name, "message": failure.message, "http_status": failure.http_status, "type": failure.type}
    return [*chunks, {"failure": ending | {"code": failure.code, "retry_after_s": failure.retry_after_s}}]


@pytest.mark.parametrize("case", sorted((GOLDEN / "answers").iterdir()), ids=lambda case: case.name)
def test_a_stream_is_read_as_reviewed_in_any_chunking(case: Path) -> None:
    body = (case / "stream.txt").read_bytes()
    n = 2 if case.name == "candidates" else 1
    for pieces in [*chunkings(body), *chunkings(body.replace(b"\n", b"\r\n"))]:
        golden.check(case / "events.json", golden.pretty(said_json(*read(pieces, n=n))))


@pytest.mark.parametrize("case", ["text", "thoughts", "calls", "candidates", "logprobs", "image", "blocked"])
def test_a_whole_answer_says_what_its_stream_says(case: str) -> None:
    body = (GOLDEN / "answers" / case / "stream.txt").read_bytes()
    pieces = [json.loads(line.removeprefix(b"data: ")) for line in body.splitlines() if line]
    events, _ = read([body], n=2 if case == "candidates" else 1)
    assembler = CompletionAssembler()
    for one in events:
        assembler.add(one.chunk)
    streamed = json.loads(encode_completion(assembler.completion()))
    merged = pieces[-1] | {
        "candidates": [_merged(candidates) for candidates in zip(*(p.get("candidates", []) for p in pieces), strict=True)]
    }
    completed = json.loads(encode_completion(read_whole(merged)))
    assert _without_ids(completed) == _without_ids(streamed)
    golden.check(GOLDEN / "answers" / case / "completion.json", golden.pretty(completed))


def _merged(candidates: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    parts: list[Any] = [part for candidate in candidates for part in candidate["content"]["parts"]]
    return {name: value for candidate in candidates for name, value in candidate.items()} | {"content": {"parts": parts, "role": "model"}}


def _without_ids(completed: Any) -> Any:
    """Without the positions that only a stream's tool calls have."""
    for choice in completed["choices"]:
        for call in choice["message"].get("tool_calls", ()):
            call.pop("index", None)
    return completed


# --- whole answers ---

REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "ESCALATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "PUP_LIMITED_DISABLED": "content_filter",
    "OTHER": "other",
    "MALFORMED_FUNCTION_CALL": "malformed_function_call",
    "MALFORMED_RESPONSE": "malformed_response",
    "UNEXPECTED_TOOL_CALL": "unexpected_tool_call",
    "TOO_MANY_TOOL_CALLS": "too_many_tool_calls",
    "MISSING_THOUGHT_SIGNATURE": "missing_thought_signature",
    "NO_IMAGE": "no_image",
    "IMAGE_OTHER": "image_other",
}


def test_every_finish_reason_that_the_sdk_knows_has_its_word() -> None:
    assert {reason.value for reason in types.FinishReason} == REASONS.keys() | {"FINISH_REASON_UNSPECIFIED"}


@pytest.mark.parametrize(("native", "reason"), [*REASONS.items(), ("SOMETHING_NEW", "something_new")])
def test_every_finish_reason_is_told_in_both_words(native: str, reason: str) -> None:
    assert finish_words({"text": "x"}, native) == [(reason, native)] * 2


def test_an_answer_with_calls_stopped_for_them() -> None:
    call = {"functionCall": {"name": "f"}}
    assert finish_words(call, "STOP") == [("tool_calls", "STOP")] * 2
    assert finish_words(call, "MAX_TOKENS") == [("length", "MAX_TOKENS")] * 2


def finish_words(part: Any, native: str) -> list[tuple[str, str]]:
    """OpenAI's word and the vendor's, whole and streamed."""
    body = answer_json(candidate_json(part, finish=native))
    events, failure = read([event(body)])
    assert failure is None
    told = [json.loads(encode_completion(read_whole(body))), json_of(events[-2])]
    return [(one["choices"][0]["finish_reason"], one["choices"][0]["native_finish_reason"]) for one in told]


def test_calls_without_ids_get_the_same_ids_every_time() -> None:
    body = answer_json(candidate_json({"functionCall": {"name": "f"}}, {"functionCall": {"name": "f"}}, finish="STOP"))
    ids = [[call.id for call in read_whole(body).choices[0].message.tool_calls] for _ in range(2)]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2
    assert all(len(id) <= 40 for id in ids[0])


def test_signatures_survive_a_round_trip() -> None:
    parts: list[Any] = [
        {"text": "Hm.", "thoughtSignature": "YQ=="},
        {"functionCall": {"id": "1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "Yg=="},
    ]
    message = json.loads(encode_completion(read_whole(answer_json(candidate_json(*parts, finish="STOP")))))["choices"][0]["message"]
    assert sent(messages=[{"role": "user", "content": "Hi"}, message])["contents"][1]["parts"] == parts


def test_images_survive_a_round_trip() -> None:
    parts: list[Any] = [{"text": "Here."}, {"inlineData": {"mimeType": "image/png", "data": "aGk="}, "thoughtSignature": "YQ=="}]
    message = json.loads(encode_completion(read_whole(answer_json(candidate_json(*parts, finish="STOP")))))["choices"][0]["message"]
    assert sent(messages=[{"role": "user", "content": "Hi"}, message])["contents"][1]["parts"] == parts


def test_an_answer_without_id_and_model_gets_ours() -> None:
    body = answer_json(candidate_json({"text": "x"}, finish="STOP"), responseId="", modelVersion=None)
    events, _ = read([event(body)])
    told_ones: list[Any] = [read_whole(body), *(one.chunk for one in events)]
    for told in told_ones:
        assert (told.id, told.model, told.created) == (reading.REPLY_ID, "small", reading.CREATED)


OF_NO_SENSE: list[Any] = [
    {},
    [],
    7,
    {"candidates": None},
    {"candidates": {}},
    {"candidates": [7]},
    {"candidates": [{"index": -1}]},
    {"candidates": [{"index": 1 << 40}]},
    {"candidates": [{"index": "0", "finishReason": "STOP"}]},
    {"candidates": [{"index": True, "finishReason": "STOP"}]},
    {"candidates": [{"content": {"parts": [{"text": "x"}]}}]},
    {"candidates": [{"content": [], "finishReason": "STOP"}]},
    {"candidates": [{"content": {"parts": {}}, "finishReason": "STOP"}]},
    {"candidates": [{"content": {"parts": [7]}, "finishReason": "STOP"}]},
    {"candidates": [{"content": {"parts": [{"functionCall": 7}]}, "finishReason": "STOP"}]},
    {"candidates": [{"content": {"parts": [{"functionCall": {"args": {}}}]}, "finishReason": "STOP"}]},
    {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": []}}]}, "finishReason": "STOP"}]},
    {"candidates": [{"finishReason": 7}]},
    {"candidates": [{"finishReason": "FINISH_REASON_UNSPECIFIED"}]},
    {"candidates": [{"finishReason": "STOP", "logprobsResult": {"chosenCandidates": [7]}}]},
    {"candidates": [{"finishReason": "STOP"}], "usageMetadata": []},
    {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": -1}},
    {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 1 << 63}},
    {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": "5"}},
    {"promptFeedback": {"blockReason": "BLOCK_REASON_UNSPECIFIED"}},
    {"promptFeedback": 7},
]


@pytest.mark.parametrize("body", OF_NO_SENSE, ids=lambda body: json.dumps(body)[:60])
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
def test_an_answer_that_makes_no_sense_is_broken(body: Any, is_stream: bool) -> None:
    events, failure = read([event(body) if is_stream else json.dumps(body).encode()], is_stream=is_stream)
    assert failure is not None
    assert (failure.kind, [one.chunk.choices[0].finish_reason for one in events]) in ((Kind.BROKEN, []), (Kind.BROKEN, [0]))


@pytest.mark.parametrize("body", [b"", b"{", b"<html>", b"\xff", b'"\\ud800"', b"[" * 100_000, b'{"x":' * 5000, b'{"x":1e999}'])
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
def test_what_is_no_json_is_broken(body: bytes, is_stream: bool) -> None:
    events, failure = read([b"data: " + body + b"\n\n" if is_stream else body], is_stream=is_stream)
    assert (events, failure and failure.kind) == ([], Kind.BROKEN)


def test_json_although_a_stream_was_asked_for_is_a_completion() -> None:
    decoder = ADAPTER.decoder(chat_pb2.ChatRequest(stream=True), Reply("application/json; charset=UTF-8", "x", 1))
    assert list(decoder.feed(whole("Hello!"))) == []
    [only] = decoder.close()
    assert only.completion.choices[0].message.text == "Hello!"


def test_an_error_with_status_200_is_an_error() -> None:
    for body in (error_json(503, "busy"), [error_json(503, "busy")]):
        events, failure = read([json.dumps(body).encode()], is_stream=False)
        assert (events, failure and (failure.kind, failure.http_status, failure.message)) == ([], (Kind.REFUSED, 503, "busy"))


# --- streams ---

WORDS = stream_parts("Hé", "llo", " wörld")
WHOLE = WORDS.opening + b"".join(WORDS.pieces) + WORDS.ending


@given(cuts=st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_where_reads_are_cut_does_not_matter(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    assert read([WHOLE[a:b] for a, b in pairwise(edges)]) == read([WHOLE])


def test_a_stream_cut_at_any_byte_before_its_last_event_is_broken() -> None:
    for end in range(len(WHOLE) - len(b"\r\n\r\n")):
        events, failure = read([WHOLE[:end]])
        assert failure is not None
        assert failure.kind is Kind.BROKEN
        assert not any(choice.finish_reason for one in events for choice in one.chunk.choices)


def test_every_event_is_given_at_once() -> None:
    decoder = ADAPTER.decoder(chat_pb2.ChatRequest(stream=True), Reply(SSE, "x", 1))
    list(decoder.feed(WORDS.opening))
    given = [[one.chunk.choices[0].delta.text for one in decoder.feed(piece)] for piece in WORDS.pieces]
    assert given == [["Hé"], ["llo"], [" wörld"]]


def test_the_last_count_of_tokens_is_the_one_that_counts() -> None:
    events, _ = read([said({"text": "a"}) + event(answer_json(candidate_json(finish="STOP"), usage=usage_json(5, 9)))])
    [usage] = [one.chunk.usage for one in events if one.chunk.HasField("usage")]
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, len(events[-1].chunk.choices)) == (5, 9, 14, 0)


def test_a_finish_reason_on_every_event_does_not_end_the_stream_early() -> None:
    events, failure = read([said({"text": "a"}, finish="STOP") + said({"text": "b"}, finish="STOP")])
    assert failure is None
    assert [one.chunk.choices[0].finish_reason for one in events[:-1]] == [0, 0, chat_pb2.FINISH_REASON_STOP]


def test_a_candidate_that_never_came_leaves_the_stream_cut() -> None:
    events, failure = read([said({"text": "a"}, finish="STOP")], n=2)
    assert (len(events), failure and failure.kind) == (1, Kind.BROKEN)


@given(st.binary(max_size=40), st.integers(0, len(WHOLE)), st.integers(0, 40), st.booleans())
def test_spoiled_bytes_never_crash_and_never_stop_falsely(noise: bytes, start: int, length: int, is_stream: bool) -> None:
    body = WHOLE if is_stream else whole("Hello")
    spoiled = body[:start] + noise + body[start + length :]
    events, failure = read([spoiled], is_stream=is_stream)
    if failure is not None:
        assert failure.kind in (Kind.BROKEN, Kind.REFUSED)
        assert not any(choice.finish_reason for one in events for choice in one.chunk.choices)
    else:
        assert b"STOP" in spoiled or b"finishReason" in spoiled


NAMES = """
    candidates content parts text thought functionCall name args id inlineData mimeType data finishReason index logprobsResult token
    chosenCandidates topCandidates logProbability usageMetadata promptTokenCount thoughtsTokenCount promptFeedback blockReason error
    message details retryDelay reason thoughtSignature code status
"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5) | st.just("STOP"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.sampled_from(["answer", "candidate", "content", "part", "call", "usage", "logprobs", "feedback"]), st.booleans())
def test_any_json_in_any_place_is_an_answer_or_a_failure(value: Any, place: str, is_stream: bool) -> None:
    candidate = candidate_json({"text": "x"}, finish="STOP")
    bodies: dict[str, Any] = {
        "answer": value,
        "candidate": answer_json(value),
        "content": answer_json(candidate | {"content": value}),
        "part": answer_json(candidate_json({"text": "a"}, value, finish="STOP")),
        "call": answer_json(candidate_json({"functionCall": value}, finish="STOP")),
        "usage": answer_json(candidate, usageMetadata=value),
        "logprobs": answer_json(candidate | {"logprobsResult": value}),
        "feedback": {"promptFeedback": value},
    }
    body = bodies[place]
    events, failure = read([event(body) if is_stream else json.dumps(body).encode()], is_stream=is_stream)
    assert failure is None or failure.kind in (Kind.BROKEN, Kind.REFUSED)
    for one in events:
        assert json_of(one)


# --- errors ---

RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}
INFO = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED", "domain": "googleapis.com"}
FIELD = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": "contents[0].role", "description": "x"}]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (error_json(429, "m", RETRY, word="RESOURCE_EXHAUSTED"), ("m", "RESOURCE_EXHAUSTED", "429", "", 17.0)),
        (
            [error_json(400, "m", FIELD, INFO, word="INVALID_ARGUMENT")],
            ("m", "INVALID_ARGUMENT", "SERVICE_DISABLED", "contents[0].role", None),
        ),
        (
            {"error": {"code": 400, "details": [7, {"retryDelay": "-1s"}]}},
            ('{"code":400,"details":[7,{"retryDelay":"-1s"}]}', "", "400", "", None),
        ),
        ({"error": "m"}, ("m", "", "", "", None)),
        ({"message": "m"}, ('{"message": "m"}', "", "", "", None)),
    ],
)
def test_the_vendors_words_are_kept(body: Any, words: tuple[Any, ...]) -> None:
    failure = ADAPTER.decode_error(418, json.dumps(body).encode())
    assert (failure.message, failure.type, failure.code, failure.param, failure.retry_after_s) == words
    assert (failure.kind, failure.http_status) == (Kind.REFUSED, 418)


def test_a_bad_key_has_the_status_that_others_give_it() -> None:
    body = json.dumps(error_json(400, "API key not valid.", INFO | {"reason": "API_KEY_INVALID"}, word="INVALID_ARGUMENT"))
    failure = ADAPTER.decode_error(400, body.encode())
    assert (failure.http_status, failure.message, failure.code) == (401, "API key not valid.", "API_KEY_INVALID")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html><title>Error 502\n (Server Error)</title></html>", "Error 502 (Server Error)"),
        (b"", "HTTP 502"),
        (b"[" * 100_000, "[" * 100_000),
        (b"\xff", "\ufffd"),
    ],
)
def test_an_error_that_is_a_page_is_told_by_its_title(body: bytes, message: str) -> None:
    failure = ADAPTER.decode_error(502, body)
    assert (failure.message, failure.http_status) == (message, 502)


# --- models ---


def test_only_models_that_chat_are_listed() -> None:
    listing = GeminiUpstream().listing(["small", "large"])
    listing["models"] += [7, {"name": 7}, {"name": "models/x"}, {"name": "models/y", "supportedGenerationMethods": 7}]
    assert [(model.id, model.owned_by) for model in ADAPTER.decode_models(json.dumps(listing).encode())] == [
        ("small", "google"),
        ("large", "google"),
    ]


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b'{"models":{}}', b"3", b"[]"])
def test_what_is_no_list_of_models_is_broken(body: bytes) -> None:
    with pytest.raises(Failure) as caught:
        ADAPTER.decode_models(body)
    assert caught.value.kind is Kind.BROKEN
