"""Questions in OpenAI's words as the adapter of Gemini's dialect tells them, for the tests about it."""

import json
from typing import Any

from services.dispatch.adapters.base import WireRequest
from services.dispatch.adapters.gemini import GeminiAdapter
from services.wire.openai import decode_request

ADAPTER = GeminiAdapter()
MODEL = "gemini-3-flash"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: dict[str, Any] = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA}}
TEXT = {"type": "text", "text": "Hi"}


def encoded(model: str = MODEL, **members: Any) -> WireRequest:
    """The request for "Hi", or with other members."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}]} | members
    return ADAPTER.encode(decode_request(json.dumps(body).encode()), model)


def sent(model: str = MODEL, **members: Any) -> Any:
    """Its body."""
    return json.loads(encoded(model, **members).body)


def user(*parts: Any) -> list[dict[str, Any]]:
    """The messages of a user who says some parts."""
    return [{"role": "user", "content": list(parts)}]
