"""Energy is an interval around the catalogue's estimate, grows with tokens, and is never nothing."""

import math
from itertools import pairwise
from typing import Any

import pytest
from ecologits.model_repository import models
from ecologits.tracers.utils import llm_impacts
from hypothesis import given, settings
from hypothesis import strategies as st

from joulegate.chat.v1.receipt_pb2 import EnergyBasis
from services.ledger.aliases import Aliases, spellings
from services.ledger.cost import Usage
from services.ledger.energy import DEMO, LOOKUP, MAX_MICROJOULES, WIDENING, Catalogue, from_price, interval
from services.ledger.overrides import Provider
from tests.unit.ledger.samples import new_figurer

CATALOGUE = Catalogue()
FIGURER = new_figurer()
CATALOGUED = [(model.provider.value, model.name) for model in models.list_models()]
OURS = {"google_genai": "gemini", "mistralai": "mistral", "huggingface_hub": "together"}


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(CATALOGUED), st.integers(0, 100_000))
def test_compiled_model_is_the_catalogue_widened(key: tuple[str, str], tokens: int) -> None:
    provider = OURS.get(key[0], key[0])
    model = CATALOGUE.find(Provider(provider, provider), [key[1]])
    assert model is not None
    energy: Any = llm_impacts(*key, tokens, math.inf).energy
    low, high = (energy.value.min, energy.value.max) if hasattr(energy.value, "min") else (energy.value, energy.value)
    got = model.of(Usage(0, 0, tokens, 0))
    assert got.low == pytest.approx(low * 3.6e12 / WIDENING, rel=1e-9, abs=2)
    assert got.high == pytest.approx(high * 3.6e12 * WIDENING, rel=1e-9, abs=2)


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


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_no_model_raises_or_takes_nothing(provider: str, model: str, size: int, cached: int, output: int) -> None:
    figures = FIGURER.of_attempt(provider, model, "", Usage(size, cached, output, 0), 0)
    assert 0 < figures.energy.low <= figures.energy.point <= figures.energy.high <= MAX_MICROJOULES
    assert figures.cost_nano_usd >= 0
    assert figures.zone


def basis_of(provider: str, model: str) -> EnergyBasis.ValueType:
    return FIGURER.of_attempt(provider, model, "", Usage(10, 0, 10, 0), 0).energy_basis


def test_basis_says_what_the_figure_rests_on() -> None:
    assert basis_of("openai", "gpt-4o") == EnergyBasis.ENERGY_BASIS_MODELLED
    assert basis_of("openai", "o3") == EnergyBasis.ENERGY_BASIS_PRICE
    assert basis_of("lab", "large") == EnergyBasis.ENERGY_BASIS_DEFAULT


def test_price_gives_a_factor_of_ten_either_way() -> None:
    energy = from_price(10).of(Usage(0, 0, 1000, 0))
    assert energy.point == pytest.approx(0.64 * 10**1.07 * 1000 * 1e6, rel=1e-6)
    assert energy.high == pytest.approx(energy.low * 100, rel=1e-6)


def test_input_costs_less_than_output_and_cached_input_a_tenth() -> None:
    model = CATALOGUE.find(Provider("openai", "openai"), ["gpt-4o"])
    assert model is not None
    nothing, fresh, cached, output = (
        model.of(Usage(*tokens)).point for tokens in ((0, 0, 0, 0), (1000, 0, 0, 0), (1000, 1000, 0, 0), (0, 0, 1000, 0))
    )
    assert nothing < cached < fresh < output
    per_token = model.per_input
    assert per_token.low < 0.2 * model.per_output.high
    assert model.of(Usage(1000, 1000, 0, 0)).low - model.of(Usage(0, 0, 0, 0)).low == pytest.approx(100e6 * per_token.low, abs=2)


def test_prefill_of_a_70b_model_is_what_the_note_derives() -> None:
    model = CATALOGUE.find(Provider("together", "together"), ["Meta-Llama-3.1-70B"])
    assert model is not None
    gpu_low, gpu_high = 2 * 70e9 * 1.2e-12, 2 * 70e9 * 1.8e-12
    assert model.per_input.low == pytest.approx(gpu_low * 1.6 / 1.3 * 1.09, rel=0.02)
    assert model.per_input.high == pytest.approx(gpu_high * 1.6 * 1.3 * 1.14, rel=0.02)


def test_long_prompt_raises_only_the_upper_end() -> None:
    model = from_price(10)
    short, long = model.of(Usage(32_000, 0, 0, 0)), model.of(Usage(64_000, 0, 0, 0))
    assert long.low == pytest.approx(2 * short.low, rel=1e-6)
    assert long.high == pytest.approx(2 * 1.64 * short.high, rel=1e-6)


def test_point_is_the_geometric_mean_and_tiny_figures_are_not_zero() -> None:
    assert interval(1e-6, 4e-6) == (1, 2, 4)
    assert interval(0, 0) == (1, 1, 1)


def test_published_figures_lie_near_the_interval() -> None:
    """Epoch AI and OpenAI: 1.1 to 1.2 kJ for a typical answer of GPT-4o's class."""
    figures = FIGURER.of_attempt("openai", "gpt-4o", "", Usage(200, 0, 400, 0), 0)
    assert figures.energy.low < 1_224_000_000 < figures.energy.high


def test_demo_and_lookup_take_millijoules() -> None:
    assert DEMO.of(Usage(10, 0, 10, 0)).high < 10_000
    assert LOOKUP == (5000, 7071, 10_000)
    assert basis_of("demo", "demo") == EnergyBasis.ENERGY_BASIS_DEFAULT
