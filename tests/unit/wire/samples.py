"""Bodies as OpenAI's API reference and its kin show them."""

import json
from typing import Any

FULL_REQUEST: dict[str, Any] = {
    "model": "gpt-4.1",
    "messages": [
        {"role": "developer", "content": "You are a helpful assistant.", "name": "ops"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is in this image?", "cache_control": {"type": "ephemeral"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/cat.png", "detail": "low", "crop": [0, 1]}},
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav", "rate": 16000}},
                {"type": "file", "file": {"file_id": "file-abc123"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "refusal": "no",
            "reasoning_content": "hm",
            "audio": {"id": "audio_abc"},
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city":"Paris"}', "note": 1},
                    "weight": 2,
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees"},
    ],
    "max_tokens": 100,
    "max_completion_tokens": 200,
    "temperature": 0.7,
    "top_p": 1,
    "n": 2,
    "stop": ["END", "STOP"],
    "seed": 42,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "logprobs": True,
    "top_logprobs": 3,
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Weather of a city",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
                "strict": True,
                "examples": ["Paris"],
            },
            "cache_control": {"type": "ephemeral"},
        }
    ],
    "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
    "reasoning_effort": "low",
    "logit_bias": {"50256": -100},
    "service_tier": "flex",
}

COMPLETION = b"""{
  "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG", "object": "chat.completion", "created": 1741570283, "model": "gpt-4.1-2025-04-14",
  "choices": [{
    "index": 0,
    "message": {"role": "assistant", "content": "Hello there", "refusal": null, "annotations": []},
    "logprobs": {"content": [{"token": "Hello", "logprob": -0.31725305, "bytes": [72, 101], "top_logprobs": []}], "refusal": null},
    "finish_reason": "stop"
  }],
  "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
      "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}},
  "service_tier": "default", "system_fingerprint": "fp_44709d6fcb"
}"""


def chunk(delta: dict[str, Any] | None = None, *, finish_reason: str | None = None, index: int = 0, **members: Any) -> bytes:
    """One chunk as OpenAI streams it; without a delta it has no choices."""
    choices = [] if delta is None else [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1741570283, "model": "gpt-4.1", "service_tier": "default"}
    return json.dumps(head | {"choices": choices, "usage": None, "obfuscation": "Xk2p"} | members).encode()


USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 20,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 8, "accepted_prediction_tokens": 0},
}

PARALLEL_TOOL_CALLS = [
    chunk({"role": "assistant", "content": None, "refusal": None}),
    chunk({"tool_calls": [{"index": 0, "id": "call_a", "type": "function", "function": {"name": "weather", "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]}),
    chunk({"tool_calls": [{"index": 1, "id": "call_b", "type": "function", "function": {"name": "time", "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}),
    chunk({}, finish_reason="tool_calls"),
    chunk(usage=USAGE),
]
