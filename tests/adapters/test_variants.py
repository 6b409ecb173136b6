"""How vendors that speak OpenAI's dialect differ: what each is sent, and what is understood whoever says it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.base import WireRequest
from services.dispatch.adapters.openai import OpenAIAdapter
from services.dispatch.adapters.variants import VARIANTS
from services.dispatch.failure import Failure, Kind
from services.wire.openai import encode_chunk, encode_completion
from tests.adapters.reading import read, request_of
from tests.fakes.openai_upstream import chunk, completion_json, event, usage_json

ADAPTER = OpenAIAdapter()
SSE = "text/event-stream"
DONE = b"data: [DONE]\n\n"
USER = {"role": "user", "content": "Hi"}


def wire(vendor: str, **members: Any) -> WireRequest:
    return OpenAIAdapter(VARIANTS[vendor]).encode(request_of(members), "m")


def sent(vendor: str, **members: Any) -> Any:
    return json.loads(wire(vendor, **members).body)


def stream(*pieces: bytes) -> tuple[list[chat_pb2.ChatCompletionChunk], Failure | None]:
    events, failure = read(ADAPTER, request_of({"stream": True}), pieces, SSE)
    return [each.chunk for each in events], failure


def whole(**members: Any) -> chat_pb2.ChatCompletion:
    events, failure = read(ADAPTER, request_of({}), [json.dumps(completion_json("x") | members).encode()], "application/json")
    assert failure is None
    return events[0].completion


@pytest.mark.parametrize("vendor", sorted(VARIANTS))
def test_what_every_vendor_knows_is_sent_as_it_came(vendor: str) -> None:
    members = {
        "messages": [{"role": "system", "content": "Be brief."}, USER],
        "temperature": 0.5,
        "max_tokens": 9,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": "auto",
        "some_member_of_its_own": {"a": [1]},
    }
    assert sent(vendor, **members) == members | {"model": "m"}


@pytest.mark.parametrize("vendor", sorted(VARIANTS.keys() - {"mistral"}))
def test_a_stream_asks_for_usage_where_that_is_understood(vendor: str) -> None:
    assert sent(vendor, stream=True)["stream_options"] == {"include_usage": True}


def test_mistral_is_sent_only_what_it_knows() -> None:
    # Each of these, sent as OpenAI calls it, is a 422 there.
    assert sent("mistral", stream=True, stream_options={"include_usage": True}) == {"model": "m", "messages": [USER], "stream": True}
    body = sent("mistral", seed=7, max_completion_tokens=5, max_tokens=9)
    assert body == {"model": "m", "messages": [USER], "random_seed": 7, "max_tokens": 5}
    messages = [{"role": "developer", "content": "Be brief."}, USER | {"name": "Al"}]
    named = wire("mistral", messages=messages, user="al", logprobs=False)
    assert json.loads(named.body)["messages"] == [{"role": "system", "content": "Be brief."}, USER]
    assert named.warnings == (
        "user: has no counterpart in Mistral's API, left out",
        "messages[1].name: has no counterpart in Mistral's API, left out",
    )


@pytest.mark.parametrize(("param", "value"), [("logprobs", True), ("logit_bias", {"1": 2}), ("modalities", ["audio"])])
def test_what_mistral_cannot_do_is_refused_by_name(param: str, value: Any) -> None:
    with pytest.raises(Failure) as raised:
        wire("mistral", **{param: value})
    assert (raised.value.kind, raised.value.param) == (Kind.UNSUPPORTED, param)


def test_mistral_takes_audio_and_files_without_the_object_around_them() -> None:
    parts = [
        {"type": "text", "text": "What?"},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f-1"}},
        {"type": "document_url", "document_url": "https://x.test/a.pdf"},
    ]
    assert sent("mistral", messages=[{"role": "user", "content": parts}])["messages"][0]["content"] == [
        parts[0],
        {"type": "input_audio", "input_audio": "UklGRg=="},
        {"type": "file", "file_id": "f-1"},
        parts[3],
    ]
    with pytest.raises(Failure) as raised:
        wire("mistral", messages=[{"role": "user", "content": [parts[0], {"type": "file", "file": {"file_data": "data:,x"}}]}])
    assert (raised.value.kind, raised.value.param) == (Kind.UNSUPPORTED, "messages[0].content[1]")


THOUGHT = {"role": "assistant", "content": "4", "reasoning_content": "2+2"}


@pytest.mark.parametrize(
    ("vendor", "arrives"),
    [
        ("openai", THOUGHT),
        ("deepseek", THOUGHT),
        ("xai", THOUGHT),
        ("groq", {"role": "assistant", "content": "4", "reasoning": "2+2"}),
        ("openrouter", {"role": "assistant", "content": "4", "reasoning": "2+2"}),
        ("together", {"role": "assistant", "content": "4", "reasoning": "2+2"}),
        (
            "mistral",
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]}, {"type": "text", "text": "4"}],
            },
        ),
    ],
)
def test_reasoning_goes_back_under_the_vendors_own_name(vendor: str, arrives: dict[str, Any]) -> None:
    both = THOUGHT | {"reasoning": "2+2"} if vendor not in ("openai", "deepseek", "xai") else THOUGHT
    for said in (THOUGHT, both):
        assert sent(vendor, messages=[USER, said])["messages"][1] == arrives


@pytest.mark.parametrize("vendor", ["deepseek", "mistral", "together"])
def test_max_completion_tokens_wins_where_there_is_one_name_for_both(vendor: str) -> None:
    body = sent(vendor, max_tokens=9, max_completion_tokens=5)
    assert body["max_tokens"] == 5 and "max_completion_tokens" not in body


def test_reasoning_by_another_name_is_found_and_its_name_kept() -> None:
    chunks, failure = stream(chunk({"reasoning": "hm"}), chunk({"content": "4"}), chunk({}, finish="stop"), DONE)
    delta = chunks[0].choices[0].delta
    assert failure is None
    assert (delta.reasoning_content, json.loads(delta.extra_json)) == ("hm", {"reasoning": "hm"})
    answer = {"index": 0, "message": {"role": "assistant", "content": "4", "reasoning": "hm"}, "finish_reason": "stop"}
    assert whole(choices=[answer]).choices[0].message.reasoning_content == "hm"


@pytest.mark.parametrize("reasoning", [None, 3, {"a": 1}, ["x"]])
def test_reasoning_that_is_no_text_is_left_alone(reasoning: Any) -> None:
    chunks, failure = stream(chunk({"reasoning": reasoning, "content": "4"}), chunk({}, finish="stop"), DONE)
    assert failure is None
    assert not chunks[0].choices[0].delta.HasField("reasoning_content")


def test_thoughts_among_the_parts_of_the_content_are_told_from_the_text() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "2"}, {"type": "text", "text": "+2"}]}
    chunks, _ = stream(chunk({"content": [thinking]}), chunk({"content": [{"type": "text", "text": "4"}]}), chunk({}, finish="stop"), DONE)
    deltas = [each.choices[0].delta for each in chunks[:2]]
    assert [(delta.reasoning_content, delta.text) for delta in deltas] == [("2+2", ""), ("", "4")]


@pytest.mark.parametrize("parts", [[], [{"type": "text", "text": "4"}]])
def test_a_list_without_thoughts_stays_a_list(parts: list[Any]) -> None:
    chunks, _ = stream(chunk({"content": parts}), chunk({}, finish="stop"), DONE)
    assert len(chunks[0].choices[0].delta.parts.parts) == len(parts)
    assert chunks[0].choices[0].delta.HasField("parts")
    answer = {"index": 0, "message": {"role": "assistant", "content": parts}, "finish_reason": "stop"}
    assert whole(choices=[answer]).choices[0].message.HasField("parts")


def test_parts_of_other_types_stay_as_they_came() -> None:
    parts = [{"type": "text", "text": "see"}, {"type": "reference", "reference_ids": [1]}]
    chunks, _ = stream(chunk({"content": parts}), chunk({}, finish="stop"), DONE)
    assert [part.type for part in chunks[0].choices[0].delta.parts.parts] == ["text", "reference"]


@pytest.mark.parametrize(("native", "reason"), [("eos", chat_pb2.FINISH_REASON_STOP), ("model_length", chat_pb2.FINISH_REASON_LENGTH)])
def test_a_finish_reason_of_others_is_translated_and_kept(native: str, reason: chat_pb2.FinishReason.ValueType) -> None:
    chunks, failure = stream(chunk({"content": "a"}, finish=native))
    choice = chunks[0].choices[0]
    assert failure is None
    assert (choice.finish_reason, json.loads(choice.extra_json)) == (reason, {"native_finish_reason": native})


def test_a_finish_reason_that_nobody_knows_is_passed_on() -> None:
    chunks, failure = stream(chunk({"content": "a"}, finish="insufficient_system_resource"), DONE)
    assert failure is None
    assert json.loads(chunks[0].choices[0].extra_json) == {"finish_reason": "insufficient_system_resource"}


def test_usage_in_groqs_own_place_counts() -> None:
    last = event(
        {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "x_groq": {"id": "req", "usage": usage_json()}}
    )
    chunks, failure = stream(chunk({"content": "a"}), last, DONE)
    assert failure is None
    assert (chunks[1].usage.prompt_tokens, chunks[1].usage.completion_tokens) == (5, 2)
    assert json.loads(chunks[1].extra_json)["x_groq"]["id"] == "req"


@pytest.mark.parametrize("groq", [3, None, [], {"usage": 3}, {"usage": {"prompt_tokens": "x"}}, {"usage": None}])
def test_nonsense_in_groqs_own_place_is_no_usage(groq: Any) -> None:
    chunks, failure = stream(event({"id": "c", "choices": [], "x_groq": groq}), chunk({}, finish="stop"), DONE)
    assert failure is None
    assert chunks[0].usage.prompt_tokens == 0


@pytest.mark.parametrize(
    ("piece", "status", "message"),
    [
        (event({"choices": [], "x_groq": {"error": "over capacity"}}), 0, "over capacity"),
        (event({"object": "error", "message": "boom", "type": "BadRequestError", "code": 400}), 400, "boom"),
        (event({"error": {"message": "boom", "code": 502}, "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}), 502, "boom"),
        (event({"error": "boom", "code": "invalid_request_error"}), 400, "boom"),
        (b'event: error\ndata: {"message": "boom"}\n\n', 0, "boom"),
    ],
)
def test_an_error_in_the_middle_of_a_stream_ends_it_whoever_says_it(piece: bytes, status: int, message: str) -> None:
    chunks, failure = stream(chunk({"content": "a"}), piece, DONE)
    assert len(chunks) == 1
    assert failure is not None
    assert (failure.kind, failure.http_status, failure.message) == (Kind.REFUSED, status, message)


def test_tokens_of_reasoning_are_completion_tokens_even_where_the_vendor_counts_them_apart() -> None:
    apart = {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 331, "completion_tokens_details": {"reasoning_tokens": 317}}
    within = {"prompt_tokens": 12, "completion_tokens": 319, "total_tokens": 331, "completion_tokens_details": {"reasoning_tokens": 317}}
    assert [whole(usage=usage).usage.completion_tokens for usage in (apart, within)] == [319, 319]
    chunks, _ = stream(chunk({}, finish="stop"), event({"choices": [], "usage": apart}), DONE)
    assert chunks[1].usage.completion_tokens == 319


@pytest.mark.parametrize(
    ("counts", "cached"),
    [({"prompt_cache_hit_tokens": 3}, 3), ({"cached_tokens": 3}, 3), ({"cached_tokens": 6}, 0), ({"cached_tokens": "3"}, 0)],
)
def test_cached_tokens_are_found_by_their_other_names(counts: dict[str, Any], cached: int) -> None:
    assert whole(usage=usage_json() | counts).usage.prompt_tokens_details.cached_tokens == cached


def test_tokens_written_to_a_prompt_cache_are_found_beside_the_details_and_in_them() -> None:
    beside = whole(usage=usage_json() | {"cache_creation_input_tokens": 3, "cached_tokens": 2}).usage
    within = whole(usage=usage_json() | {"prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3}}).usage
    for details in (beside.prompt_tokens_details, within.prompt_tokens_details):
        assert (details.cached_tokens, details.cache_write_tokens) == (2, 3)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (
            b'{"code":"Client specified an invalid argument","error":"Model not found"}',
            "Model not found",
            "Client specified an invalid argument",
        ),
        (b'{"object":"error","message":"m","type":"invalid_request_error","param":null,"code":"1500"}', "m", "1500"),
        (b'{"object":"error","message":{"detail":[{"loc":["body","x"]}]},"type":"t"}', '{"detail":[{"loc":["body","x"]}]}', ""),
        (b'{"error":{"message":"m","code":402,"metadata":{"provider_name":"p"}}}', "m", "402"),
        (b"<html><head><title>524: A timeout occurred</title></head></html>", "524: A timeout occurred", ""),
    ],
)
def test_errors_of_every_shape_keep_their_words(body: bytes, message: str, code: str) -> None:
    failure = ADAPTER.decode_error(422, body)
    assert (failure.message, failure.code, failure.http_status) == (message, code, 422)


def test_models_of_github_are_in_its_catalogue() -> None:
    github = OpenAIAdapter(VARIANTS["github"])
    assert str(URL(f"https://models.github.ai/inference{github.models_path}")) == "https://models.github.ai/catalog/models"
    listed = github.decode_models(b'[{"id":"openai/gpt-4.1","name":"OpenAI GPT-4.1","publisher":"OpenAI"}]')
    assert [model.id for model in listed] == ["openai/gpt-4.1"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "type", "thinking", "usage", "error", "a"]), inner)
    ),
    max_leaves=6,
)


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_no_value_in_the_vendors_own_places_does_harm(reasoning: Any, content: Any, finish: Any, groq: Any, details: Any) -> None:
    delta = {"reasoning": reasoning, "content": [{"type": "thinking", "thinking": content}, {"type": "text", "text": content}]}
    usage = {"prompt_tokens": 1, "cached_tokens": details, "completion_tokens_details": details}
    said = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "x_groq": groq, "usage": usage}
    chunks, failure = stream(event(said))
    is_over = bool(chunks) and bool(chunks[0].choices[0].finish_reason or chunks[0].choices[0].extra_json)
    assert is_over or failure is not None


@pytest.mark.parametrize(
    ("vendor", "beside", "nano_usd"),
    [
        ("openrouter", {"cost": 0.00014}, 140_000),
        ("openrouter", {"cost": 0}, 0),
        ("openrouter", {"cost": 0.95, "cost_details": {"upstream_inference_cost": 19}, "is_byok": False}, 950_000_000),
        ("openrouter", {"cost": 0.95, "cost_details": {"upstream_inference_cost": 19}, "is_byok": True}, 19_950_000_000),
        ("openrouter", {"cost": 0.95, "is_byok": True}, None),
        ("xai", {"cost_in_usd_ticks": 37_756_000}, 3_775_600),
        # Nobody knows what a member of that name means elsewhere.
        ("openai", {"cost": 1.0, "cost_in_usd_ticks": 1}, None),
        ("openrouter", {}, None),
        ("openrouter", {"cost": None}, None),
        ("openrouter", {"cost": -1}, None),
        ("openrouter", {"cost": True}, None),
        ("openrouter", {"cost": "1"}, None),
        ("openrouter", {"cost": 1e300}, None),
        ("xai", {"cost_in_usd_ticks": [1]}, None),
    ],
)
def test_what_a_vendor_bills_is_read_and_its_own_word_for_it_left_in_place(
    vendor: str, beside: dict[str, Any], nano_usd: int | None
) -> None:
    usage = usage_json() | beside
    adapter = OpenAIAdapter(VARIANTS[vendor])
    end = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
    whole_body = [json.dumps(completion_json("x") | {"usage": usage}).encode()]
    for request, body, kind in (({}, whole_body, "application/json"), ({"stream": True}, [event(end) + DONE], SSE)):
        events, failure = read(adapter, request_of(request), body, kind)
        assert failure is None
        last = events[-1]
        answer = last.chunk if kind == SSE else last.completion
        assert (last.reported_cost_nano_usd if last.HasField("reported_cost_nano_usd") else None) == nano_usd
        encoded = encode_chunk(answer) if isinstance(answer, chat_pb2.ChatCompletionChunk) else encode_completion(answer)
        assert json.loads(encoded)["usage"] == usage
