"""A scripted Azure OpenAI: OpenAI's words, with what the content filters found."""

import json
from collections.abc import Sequence
from typing import Any

from tests.fakes.openai_upstream import chunk, completion_json, event, usage_json
from tests.fakes.upstream import StreamParts, Upstream

SAFE = {"hate": {"filtered": False, "severity": "safe"}, "violence": {"filtered": False, "severity": "safe"}}
PROMPT_RESULTS = [{"prompt_index": 0, "content_filter_results": SAFE}]


class AzureUpstream(Upstream):
    """The resource; it lists models as Azure does, with what they can do."""

    def listing(self, models: Sequence[str]) -> Any:
        able = {"chat_completion": True, "inference": True}
        data = [{"id": model, "object": "model", "capabilities": able, "created_at": 1_700_000_000} for model in models]
        return {"object": "list", "data": data}


def whole(text: str) -> bytes:
    body = completion_json(text)
    body["choices"][0]["content_filter_results"] = SAFE
    return json.dumps(body | {"prompt_filter_results": PROMPT_RESULTS}).encode()


def stream_parts(*texts: str) -> StreamParts:
    """Azure's first chunk has no choices, no model and no id: it is the filters' word on the prompt."""
    prompt = event({"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": PROMPT_RESULTS})
    last = event({"id": "chatcmpl-1", "model": "small", "created": 1_700_000_000, "choices": [], "usage": usage_json()})
    return StreamParts(
        prompt + chunk({"role": "assistant", "content": ""}),
        [_filtered(text) for text in texts],
        chunk({}, finish="stop") + last + b"data: [DONE]\n\n",
        "text/event-stream",
    )


def _filtered(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, "content_filter_results": SAFE}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "small", "choices": [choice]})


def error_body(status: int, message: str) -> bytes:
    return json.dumps({"error": {"code": str(status), "message": message}}).encode()


def filter_error() -> bytes:
    """The refusal of a prompt that a filter caught; it is sent with status 400."""
    caught = {"hate": {"filtered": True, "severity": "high"}, "violence": {"filtered": False, "severity": "safe"}}
    error = {
        "message": "The response was filtered.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": caught},
    }
    return json.dumps({"error": error}).encode()
