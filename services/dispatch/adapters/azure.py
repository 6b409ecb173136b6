"""OpenAI's chat completions as Azure serves them: a model is reached by the name of its deployment, and content filters speak along.

The API named `v1` (or `preview`) is OpenAI's own under another path; a dated one has the deployment in the path and its date behind it.
What the filters found, `prompt_filter_results` and `content_filter_results`, stays in the answer; `innererror` of a refusal is told with
its message.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.base import WireRequest
from services.dispatch.adapters.bodies import json_or_none, word
from services.dispatch.adapters.openai import OpenAIAdapter
from services.dispatch.adapters.variants import OPENAI, Variant
from services.dispatch.failure import Failure

NEWEST: Final = "v1"
_UNDATED: Final = frozenset({NEWEST, "preview", "latest"})
# An older one answers 400 to `stream_options`: the usage of its streams is estimated.
_FIRST_WITH_USAGE: Final = "2024-09-01"
_WITHOUT_USAGE: Final = Variant("Azure's API of that date", has_stream_options=False)


class AzureAdapter(OpenAIAdapter):
    """The dialect of one resource. A model that `deployments` does not name is taken for a deployment's own name."""

    def __init__(self, api_version: str = NEWEST, deployments: Mapping[str, str] | None = None) -> None:
        self._is_dated = api_version not in _UNDATED
        super().__init__(_WITHOUT_USAGE if self._is_dated and api_version < _FIRST_WITH_USAGE else OPENAI)
        self._deployments = dict(deployments or {})
        self._query = "" if api_version == NEWEST else f"?api-version={quote(api_version, safe='')}"
        self.models_path = f"/openai/{'' if self._is_dated else 'v1/'}models{self._query}"

    def authorization(self, key: str) -> Mapping[str, str]:
        return {"api-key": key}

    def encode(self, request: chat_pb2.ChatRequest, model: str) -> WireRequest:
        deployment = self._deployments.get(model, model)
        wire = super().encode(request, deployment)
        surface = f"deployments/{quote(deployment, safe='')}" if self._is_dated else "v1"
        return WireRequest(f"/openai/{surface}/chat/completions{self._query}", wire.headers, wire.body, wire.warnings)

    def decode_error(self, status: int, body: bytes) -> Failure:
        failure = super().decode_error(status, body)
        if found := _filtered(json_or_none(body)):
            failure.message = f"{failure.message} ({found})"
        return failure


def _filtered(body: Any) -> str:
    """What the content filter says it found, in its own words; empty when it says nothing."""
    error = body.get("error") if isinstance(body, dict) else None
    inner = error.get("innererror") if isinstance(error, dict) else None
    if not isinstance(inner, dict):
        return ""
    results = inner.get("content_filter_result") or inner.get("content_filter_results")
    found = sorted(results.items()) if isinstance(results, dict) else []
    caught = [f"{name} {word(each.get('severity'))}".rstrip() for name, each in found if isinstance(each, dict) and each.get("filtered")]
    return ": ".join(part for part in (word(inner.get("code")), ", ".join(caught)) if part)
