"""The fakes of all dialects side by side, for tests that hold for each of them."""

from dataclasses import dataclass
from typing import Protocol

from services.dispatch.adapters.anthropic import AnthropicAdapter
from services.dispatch.adapters.azure import AzureAdapter
from services.dispatch.adapters.base import Adapter
from services.dispatch.adapters.cohere import CohereAdapter
from services.dispatch.adapters.gemini import GeminiAdapter
from services.dispatch.adapters.ollama import OllamaAdapter
from services.dispatch.adapters.openai import OpenAIAdapter
from tests.fakes import anthropic_upstream, azure_upstream, cohere_upstream, gemini_upstream, ollama_upstream, openai_upstream
from tests.fakes.upstream import StreamParts, Upstream


class Words(Protocol):
    """What a fake's module says in its dialect. A finished answer's usage is 5 prompt tokens and 2 completion tokens."""

    def whole(self, text: str) -> bytes: ...

    def stream_parts(self, *texts: str) -> StreamParts: ...

    def error_body(self, status: int, message: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """One dialect: how we speak it, and how its fake does."""

    kind: str
    adapter: Adapter
    words: Words
    upstream: type[Upstream]
    # What the stream says where it ends as it should: without this in it, nothing has stopped.
    stop_word: bytes


DIALECTS = [
    Dialect("openai", OpenAIAdapter(), openai_upstream, openai_upstream.OpenAIUpstream, b"stop"),
    Dialect("anthropic", AnthropicAdapter(), anthropic_upstream, anthropic_upstream.AnthropicUpstream, b"end_turn"),
    Dialect("azure", AzureAdapter("2024-10-21"), azure_upstream, azure_upstream.AzureUpstream, b"stop"),
    Dialect("cohere", CohereAdapter(), cohere_upstream, cohere_upstream.CohereUpstream, b"COMPLETE"),
    Dialect("gemini", GeminiAdapter(), gemini_upstream, gemini_upstream.GeminiUpstream, b"STOP"),
    Dialect("ollama", OllamaAdapter(), ollama_upstream, ollama_upstream.OllamaUpstream, b"stop"),
]
