"""What a client may ask for, each with a request that asks for it, and whether a dialect can say it: found out by having it say it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.base import Adapter
from services.dispatch.failure import Failure
from services.wire.fields import encode
from services.wire.openai import decode_request


class Support(Enum):
    """What becomes of a request for a feature."""

    FULL = "yes"
    LEFT_OUT = "left out"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Feature:
    """Something of OpenAI's API, and the members of a request that uses it."""

    name: str
    sample: Mapping[str, Any]


_PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_USER: Final = {"role": "user", "content": "Hi"}
_CALLS: Final = tuple(
    {"id": f"call_{city}", "type": "function", "function": {"name": "weather", "arguments": f'{{"city":"{city}"}}'}}
    for city in ("Rome", "Bonn")
)
_SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}]}


def _tool(choice: Any = None, strict: bool | None = None, **members: Any) -> dict[str, Any]:
    function = {"name": "weather", "parameters": _SCHEMA} | ({} if strict is None else {"strict": strict})
    chosen = {} if choice is None else {"tool_choice": choice}
    return {"tools": [{"type": "function", "function": function}], **chosen, **members}


FEATURES: Final = (
    Feature("streams, with usage at their end", {"stream": True, "stream_options": {"include_usage": True}}),
    Feature("`system` messages", {"messages": [{"role": "system", "content": "Be brief."}, _USER]}),
    Feature("`developer` messages", {"messages": [{"role": "developer", "content": "Be brief."}, _USER]}),
    Feature("several turns", {"messages": [_USER, {"role": "assistant", "content": "Hello"}, _USER]}),
    Feature("`name` of a user", {"messages": [_USER | {"name": "Al"}]}),
    Feature("images by URL", _part({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})),
    Feature("images as base64", _part({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_PIXEL}"}})),
    Feature("audio", _part({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}})),
    Feature("files", _part({"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0="}})),
    Feature("tools", _tool()),
    Feature("tools, `strict`", _tool(strict=True)),
    Feature('`tool_choice`: `"none"`', _tool("none")),
    Feature('`tool_choice`: `"required"`', _tool("required")),
    Feature("`tool_choice`: a function", _tool({"type": "function", "function": {"name": "weather"}})),
    Feature("`parallel_tool_calls`: false", _tool(parallel_tool_calls=False)),
    Feature(
        "results of several tools",
        _tool(
            messages=[
                _USER,
                {"role": "assistant", "content": None, "tool_calls": list(_CALLS)},
                *({"role": "tool", "tool_call_id": call["id"], "content": "sun"} for call in _CALLS),
            ]
        ),
    ),
    Feature("JSON mode", {"response_format": {"type": "json_object"}}),
    Feature(
        "JSON schema", {"response_format": {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": _SCHEMA}}}
    ),
    Feature("`max_tokens`", {"max_tokens": 100}),
    Feature("`max_completion_tokens`", {"max_completion_tokens": 100}),
    Feature("`temperature`", {"temperature": 0.5}),
    Feature("`top_p`", {"top_p": 0.5}),
    Feature("`stop`", {"stop": ["END"]}),
    Feature("`seed`", {"seed": 1}),
    Feature("`n` above 1", {"n": 2}),
    Feature("`logprobs`", {"logprobs": True}),
    Feature("`top_logprobs`", {"logprobs": True, "top_logprobs": 2}),
    Feature("`presence_penalty`", {"presence_penalty": 0.5}),
    Feature("`frequency_penalty`", {"frequency_penalty": 0.5}),
    Feature("`logit_bias`", {"logit_bias": {"50256": -100}}),
    Feature("`reasoning_effort`", {"reasoning_effort": "high"}),
    Feature(
        "`reasoning_content` sent back",
        {"messages": [_USER, {"role": "assistant", "content": "4", "reasoning_content": "2+2"}, _USER]},
    ),
    Feature("answers as audio", {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}),
    Feature("`web_search_options`", {"web_search_options": {}}),
    Feature("`user`", {"user": "al"}),
    Feature("`metadata`", {"metadata": {"team": "lab"}}),
    Feature("`service_tier`", {"service_tier": "flex"}),
    Feature("the vendor's own parameters", {"top_k": 40}),
)
# Of these features, those that programs choose a provider by, and the word that listings have for each.
CAPABILITIES: Final[Mapping[str, str]] = {
    "streaming": "streams, with usage at their end",
    "vision": "images as base64",
    "audio": "audio",
    "tools": "tools",
    "json_mode": "JSON mode",
    "json_schema": "JSON schema",
    "reasoning": "`reasoning_effort`",
}


def request_for(feature: Feature) -> chat_pb2.ChatRequest:
    """The sample as a whole request."""
    return decode_request(encode({"model": "model", "messages": [_USER]} | dict(feature.sample)))


def support(adapter: Adapter, model: str, feature: Feature) -> Support:
    """Whether a dialect says what the feature's sample asks for."""
    try:
        wire = adapter.encode(request_for(feature), model)
    except Failure:
        return Support.REFUSED
    return Support.LEFT_OUT if wire.warnings else Support.FULL


def supports(adapter: Adapter, model: str) -> Sequence[Support]:
    """For each feature, in order."""
    return [support(adapter, model, feature) for feature in FEATURES]


def capabilities(adapter: Adapter, model: str) -> list[str]:
    """What a dialect can say, in the words of listings."""
    features = {feature.name: feature for feature in FEATURES}
    return ["chat", *(word for word, name in CAPABILITIES.items() if support(adapter, model, features[name]) is Support.FULL)]
