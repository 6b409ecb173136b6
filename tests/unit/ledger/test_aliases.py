"""Names that providers use find the model that they mean."""

from itertools import pairwise

import pytest
from ecologits.model_repository import models
from hypothesis import given
from hypothesis import strategies as st

from services.ledger.aliases import MOST_ENDINGS, Aliases, spellings
from services.ledger.weights import Weights, bits_of, from_name, listed

CATALOGUED = [(model.provider.value, model.name) for model in models.list_models()]


@pytest.mark.parametrize(
    ("provider", "model", "key"),
    [
        ("openai", "gpt-4o-2024-08-06", ("openai", "gpt-4o-2024-08-06")),
        ("openai", "gpt-4o-2031-01-01", ("openai", "gpt-4o")),
        ("openai", "gpt-4-turbo-preview", ("openai", "gpt-4-turbo")),
        ("openai", "gpt-4o-mini-2024-07-18", ("openai", "gpt-4o-mini-2024-07-18")),
        ("github", "openai/gpt-4o", ("openai", "gpt-4o")),
        ("lab", "gpt-4o", ("openai", "gpt-4o")),
        ("azure", "gpt-35-turbo", ("openai", "gpt-35-turbo")),
        ("anthropic", "claude-sonnet-4-5-20250929", ("anthropic", "claude-sonnet-4-5-20250929")),
        ("anthropic", "claude-sonnet-4-5@20250929", ("anthropic", "claude-sonnet-4-5")),
        ("gemini", "models/gemini-2.5-flash", ("google_genai", "gemini-2.5-flash")),
        ("cohere", "command-r", ("cohere", "command-r-08-2024")),
        ("groq", "llama-3.1-8b-instant", ("huggingface_hub", "meta-llama/Meta-Llama-3.1-8B")),
        ("together", "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo", ("huggingface_hub", "meta-llama/Meta-Llama-3.1-8B-Instruct")),
        ("ollama", "llama3.1:8b", ("huggingface_hub", "meta-llama/Meta-Llama-3.1-8B")),
        ("groq", "openai/gpt-oss-120b", ("huggingface_hub", "openai/gpt-oss-120b")),
        ("openai", "o3", None),
        ("openai", "chat", None),
        ("anthropic", "claude-3-haiku-20240307", None),
        ("", "", None),
    ],
)
def test_providers_own_names_find_the_catalogued_model(provider: str, model: str, key: tuple[str, str] | None) -> None:
    assert Aliases(CATALOGUED).find(provider, model) == key


@given(st.text(max_size=60))
def test_any_name_has_spellings_that_get_shorter(name: str) -> None:
    found = list(spellings(name))
    assert found
    assert all(len(after) < len(before) for before, after in pairwise(found))


def test_name_of_endings_alone_is_given_up_soon() -> None:
    assert len(list(spellings("x-" + "latest-" * 70))) == MOST_ENDINGS + 1


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        ("llama3.2:3b", Weights(3, 3)),
        ("qwen3:30b-a3b", Weights(30, 3)),
        ("smollm2:135m", Weights(0.135, 0.135)),
        ("accounts/fireworks/models/qwen2p5-72b-instruct", Weights(72, 72)),
        ("Qwen/Qwen2.5-1.5B-Instruct", Weights(1.5, 1.5)),
        ("nousresearch/hermes-3-llama-3.1-405b", Weights(405, 405)),
        # A context, a version, a date and an expert are no sizes.
        ("phi-3-mini-128k", None),
        ("gpt-4o-2024-08-06", None),
        ("claude-3-5-sonnet", None),
        ("gemma3n:e4b", None),
        ("0b", None),
        ("99999b", None),
    ],
)
def test_name_says_the_size(model: str, weights: Weights | None) -> None:
    assert from_name(model) == weights


def test_experts_share_their_attention() -> None:
    found = from_name("mixtral-8x22b-instruct")
    assert found is not None
    assert found.total == pytest.approx(140.6, rel=0.05)
    assert found.active == pytest.approx(39.1, rel=0.05)


@pytest.mark.parametrize(
    ("model", "total"),
    [
        ("llama3.2", 3.21),
        ("llama3.2:latest", 3.21),
        ("meta.llama4-scout-17b-instruct-v1:0", 109),
        ("deepseek-r1-0528", 671),
        ("phi3:mini", 3.82),
    ],
)
def test_name_without_a_size_is_in_the_table(model: str, total: float) -> None:
    found = listed(model)
    assert found is not None and found.total == total


@pytest.mark.parametrize("model", ["deepseek-r1:7b", "llama-3-70b", "gpt-4o", "mistral-large-4", ""])
def test_table_is_not_for_other_sizes(model: str) -> None:
    assert listed(model) is None


@pytest.mark.parametrize(
    ("model", "bits"),
    [
        ("llama3.2:3b-instruct-q4_K_M", 4),
        ("llama-3-8b-iq3_xxs.gguf", 3),
        ("Llama-2-13B-chat-GPTQ", 4),
        ("llama-3-8b-bnb-4bit", 4),
        ("Meta-Llama-3.1-405B-Instruct-FP8", 8),
        ("llama3.1:8b-instruct-q8_0", 8),
        ("llama3.1:8b-instruct-fp16", 16),
        ("llama3.1:8b", None),
        ("gpt-4", None),
        ("qwen4", None),
    ],
)
def test_name_says_how_it_is_quantised(model: str, bits: int | None) -> None:
    assert bits_of(model) == bits


@given(st.text(max_size=60))
def test_no_name_is_too_odd_to_read(name: str) -> None:
    listed(name)
    bits_of(name)
    found = from_name(name)
    assert found is None or 0 < found.active <= found.total
