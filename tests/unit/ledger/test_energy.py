"""Energy is an interval around the best that is known about a model, grows with tokens, and is never nothing."""

import math
from typing import Any

import pytest
from ecologits.model_repository import models
from ecologits.tracers.utils import llm_impacts
from hypothesis import given, settings
from hypothesis import strategies as st

from joulegate.chat.v1.receipt_pb2 import EnergyBasis
from services.ledger import tables
from services.ledger.catalogue import FAMILY_WIDENING, WIDENING, Catalogue, pue_of
from services.ledger.cost import Usage
from services.ledger.energy import DEMO, LOOKUP, MAX_MICROJOULES, Span, from_price, here, hosted, interval, measured
from services.ledger.overrides import DeclaredEnergy, Overrides, Provider
from services.ledger.regression import joules_per_output_token, runs
from services.ledger.weights import Weights
from tests.unit.ledger.samples import new_figurer

CATALOGUE = Catalogue()
OVERRIDES = Overrides(
    providers={
        "shed": Provider("shed", "openai", "http://127.0.0.1:8080/v1"),
        "rack": Provider("rack", "openai", "http://vllm:8000/v1"),
        "far": Provider("far", "openai", "https://llm.example.com/v1"),
    },
    energies={
        ("shed", "own"): DeclaredEnergy(0.5, 0.01),
        ("shed", "plain"): DeclaredEnergy(0.8),
        ("far", "gpt-4o"): DeclaredEnergy(3),
    },
)
FIGURER = new_figurer(OVERRIDES)
CLOSED = [
    (model.provider.value, model.name)
    for model in models.list_models()
    if CATALOGUE.weights("", model.name) is None and CATALOGUE.modelled("", model.name) is not None
]
OURS = {"google_genai": "gemini", "mistralai": "mistral"}


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(CLOSED), st.integers(0, 100_000))
def test_closed_model_is_the_catalogue_widened(key: tuple[str, str], tokens: int) -> None:
    model = CATALOGUE.modelled(OURS.get(key[0], key[0]), key[1])
    assert model is not None
    assert model.basis == EnergyBasis.ENERGY_BASIS_MODELLED
    energy: Any = llm_impacts(*key, tokens, math.inf).energy
    got = model.of(Usage(0, 0, tokens, 0))
    assert got.low == pytest.approx(energy.value.min * 3.6e12 / WIDENING, rel=1e-9, abs=2)
    assert got.high == pytest.approx(energy.value.max * 3.6e12 * WIDENING, rel=1e-9, abs=2)


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_no_model_raises_or_takes_nothing(provider: str, model: str, size: int, cached: int, output: int) -> None:
    figures = FIGURER.of_attempt(provider, model, "", Usage(size, cached, output, 0), 0)
    assert 0 < figures.energy.low <= figures.energy.point <= figures.energy.high <= MAX_MICROJOULES
    assert figures.cost_nano_usd >= 0
    assert figures.zone


def joules(provider: str, model: str, output_tokens: int = 400) -> Span:
    energy = FIGURER.of_attempt(provider, model, "", Usage(0, 0, output_tokens, 0), 0).energy
    return Span(energy.low / 1e6, energy.high / 1e6)


def basis_of(provider: str, model: str) -> str:
    figures = FIGURER.of_attempt(provider, model, "", Usage(10, 0, 10, 0), 0)
    return EnergyBasis.Name(figures.energy_basis).removeprefix("ENERGY_BASIS_").lower()


@pytest.mark.parametrize(
    ("provider", "model", "basis"),
    [
        # Dated, undated, and with the names of clouds and resellers around them.
        ("openai", "gpt-4o", "modelled"),
        ("openai", "gpt-4o-2024-08-06", "modelled"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:lab::id", "modelled"),
        ("openai", "chatgpt-4o-latest", "modelled"),
        ("openai", "o3", "modelled"),
        ("openai", "o1-preview", "modelled"),
        ("azure", "gpt-35-turbo-16k", "modelled"),
        ("openrouter", "openai/gpt-4.1-mini", "modelled"),
        ("anthropic", "claude-3-haiku", "modelled"),
        ("anthropic", "claude-3-haiku-20240307", "modelled"),
        ("anthropic", "claude-3-5-sonnet", "modelled"),
        ("anthropic", "claude-3-5-sonnet-latest", "modelled"),
        ("anthropic", "claude-2.1", "modelled"),
        ("bedrock", "anthropic.claude-3-haiku-20240307-v1:0", "modelled"),
        ("bedrock", "eu.anthropic.claude-3-7-sonnet-20250219-v1:0", "modelled"),
        ("vertex", "claude-3-5-sonnet-v2@20241022", "modelled"),
        ("openrouter", "anthropic/claude-3.5-sonnet:beta", "modelled"),
        ("gemini", "models/gemini-1.5-pro-002", "modelled"),
        ("gemini", "gemini-2.0-flash-lite-001", "modelled"),
        ("mistral", "mistral-medium-latest", "modelled"),
        # Open weights: measured themselves, or of known size.
        ("groq", "llama-3.1-8b-instant", "benchmark"),
        ("together", "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo", "benchmark"),
        ("fireworks", "accounts/fireworks/models/llama-v3p1-70b-instruct", "benchmark"),
        ("bedrock", "us.meta.llama3-1-70b-instruct-v1:0", "benchmark"),
        ("openrouter", "qwen/qwen3-235b-a22b-2507:free", "benchmark"),
        ("groq", "openai/gpt-oss-120b", "benchmark"),
        ("together", "meta-llama/Llama-3.1-70B-Instruct-AWQ", "regression"),
        ("groq", "llama-3.3-70b-versatile", "regression"),
        ("deepseek", "deepseek-chat", "regression"),
        ("mistral", "mistral-large-2411", "regression"),
        ("mistral", "open-mixtral-8x7b", "regression"),
        ("cohere", "command-r", "regression"),
        ("cohere", "command-r-plus-08-2024", "regression"),
        ("together", "Qwen/Qwen2.5-72B-Instruct-Turbo", "regression"),
        ("huggingface", "TheBloke/Llama-2-13B-chat-GPTQ", "regression"),
        ("ollama", "llama3.2:3b", "regression"),
        ("ollama", "llama3.2", "regression"),
        ("ollama", "llama3.1:8b", "regression"),
        ("ollama", "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", "regression"),
        ("ollama", "deepseek-r1:7b", "regression"),
        ("ollama", "smollm2:135m", "regression"),
        ("shed", "/models/mistral-7b-instruct-v0.2.Q4_K_M.gguf", "regression"),
        ("rack", "Qwen/Qwen3-14B", "regression"),
        # A closed model behind an address of one's own is a proxy.
        ("shed", "gpt-4o", "modelled"),
        # Its price, what the operator says, or nothing.
        ("xai", "grok-4", "price"),
        ("shed", "own", "declared"),
        ("far", "gpt-4o", "declared"),
        ("far", "large", "default"),
        ("ollama", "no-such", "default"),
        ("demo", "demo", "default"),
        ("", "", "default"),
    ],
)
def test_basis_says_what_the_figure_rests_on(provider: str, model: str, basis: str) -> None:
    assert basis_of(provider, model) == basis


def test_every_family_stands_for_a_catalogued_model() -> None:
    catalogued = {(model.provider.value, model.name) for model in models.list_models()}
    assert {tuple(row["stand_in"]) for row in tables.rows("families")} <= catalogued


def test_family_is_wider_than_the_model_that_stands_for_it() -> None:
    own, stand_in = joules("openai", "o1"), joules("openai", "o3")
    assert stand_in.low == pytest.approx(own.low / FAMILY_WIDENING, rel=1e-6)
    assert stand_in.high == pytest.approx(own.high * FAMILY_WIDENING, rel=1e-6)


def test_measured_model_spans_its_batches_and_the_machine_around_the_accelerator() -> None:
    energy = measured(runs()["llama-3-1-70b"], Span(1.1, 1.2)).of(Usage(0, 0, 1000, 0))
    assert energy.low == pytest.approx(0.48 * 1.6 / 1.3 * 1.1 * 1e9, rel=1e-6)
    assert energy.high == pytest.approx(2.09 * 1.6 * 1.3 * 1.2 * 1e9, rel=1e-6)


def test_model_with_one_measured_batch_gets_the_spread_of_the_others() -> None:
    low, high = runs()["gpt-oss-120b"].ends
    assert 0.27 * 0.5 < low < 0.27 * 0.7
    assert 0.27 * 2 < high < 0.27 * 2.6


def test_hosted_regression_spans_what_an_unknown_batch_does() -> None:
    weights = Weights(32, 32)
    middle = joules_per_output_token(weights, 64) * 1.6
    energy = hosted(weights, Span(1.2, 1.2)).of(Usage(0, 0, 1000, 0))
    assert energy.low == pytest.approx(middle * 0.39 / 1.3 * 1.2 * 1e9, rel=1e-6)
    assert energy.high == pytest.approx(middle * 3.16 * 1.3 * 1.2 * 1e9, rel=1e-6)


def test_own_machine_has_no_data_centre_and_small_batches() -> None:
    weights = Weights(8, 8, 4)
    energy = here(weights, 4).of(Usage(0, 0, 1000, 0))
    assert energy.low == pytest.approx(joules_per_output_token(weights, 4) / 1.95 * 1.6 / 1.3 * 1e9, rel=1e-6)
    assert energy.high == pytest.approx(joules_per_output_token(weights, 1) * 1.95 * 1.6 * 1.3 * 1e9, rel=1e-6)


def test_fewer_bits_take_less() -> None:
    assert joules("ollama", "llama3.1:8b-instruct-q4_K_M") == joules("ollama", "llama3.1:8b")
    assert joules("ollama", "llama3.1:8b").high < joules("ollama", "llama3.1:8b-instruct-q8_0").high
    assert joules("ollama", "llama3.1:8b-instruct-q8_0").high < joules("ollama", "llama3.1:8b-instruct-fp16").high


def test_measured_four_bit_model_on_a_laptop_lies_in_the_interval() -> None:
    """Llama 3.1 8B in four bits: a laptop with 40 W at 25 tokens per second, a desktop card with 300 W and its machine at 100."""
    span = joules("ollama", "llama3.1:8b", 1)
    assert span.low < 40 / 25 < span.high
    assert span.low < 300 / 100 < span.high


def test_declared_joules_are_taken_at_their_word() -> None:
    own = FIGURER.of_attempt("shed", "own", "", Usage(100, 0, 10, 0), 0).energy
    assert own == (6_000_000, 6_000_000, 6_000_000)
    plain = FIGURER.of_attempt("shed", "plain", "served", Usage(100, 100, 10, 0), 0).energy
    assert plain.low == plain.high == 10_000_000


def test_price_gives_a_factor_of_ten_either_way() -> None:
    energy = from_price(10).of(Usage(0, 0, 1000, 0))
    assert energy.point == pytest.approx(0.64 * 10**1.07 * 1000 * 1e6, rel=1e-6)
    assert energy.high == pytest.approx(energy.low * 100, rel=1e-6)


def test_input_costs_less_than_output_and_cached_input_a_tenth() -> None:
    model = CATALOGUE.modelled("openai", "gpt-4o")
    assert model is not None
    nothing, fresh, cached, output = (
        model.of(Usage(*tokens)).point for tokens in ((0, 0, 0, 0), (1000, 0, 0, 0), (1000, 1000, 0, 0), (0, 0, 1000, 0))
    )
    assert nothing < cached < fresh < output
    per_token = model.per_input
    assert per_token.low < 0.2 * model.per_output.high
    assert model.of(Usage(1000, 1000, 0, 0)).low - model.of(Usage(0, 0, 0, 0)).low == pytest.approx(100e6 * per_token.low, abs=2)


def test_prefill_of_a_70b_model_is_what_its_flops_take() -> None:
    model = hosted(Weights(70, 70), pue_of(""))
    assert model.per_input.low == pytest.approx(2 * 70e9 * 1.2e-12 * 1.6 / 1.3 * 1.09, rel=0.01)
    assert model.per_input.high == pytest.approx(2 * 70e9 * 1.8e-12 * 1.6 * 1.3 * 1.14, rel=0.01)


def test_long_prompt_raises_only_the_upper_end() -> None:
    model = from_price(10)
    short, long = model.of(Usage(32_000, 0, 0, 0)), model.of(Usage(64_000, 0, 0, 0))
    assert long.low == pytest.approx(2 * short.low, rel=1e-6)
    assert long.high == pytest.approx(2 * 1.64 * short.high, rel=1e-6)


def test_point_is_the_geometric_mean_and_tiny_figures_are_not_zero() -> None:
    assert interval(1e-6, 4e-6) == (1, 2, 4)
    assert interval(0, 0) == (1, 1, 1)


def test_published_figures_lie_in_or_just_below_the_interval() -> None:
    """A typical query of GPT-4o's class, by OpenAI (0.34 Wh) and Epoch AI (0.3 Wh). They tell no tokens: 400 stand for them."""
    span = joules("openai", "gpt-4o", 400)
    assert span.low < 0.34 * 3600 < span.high
    assert span.low / 1.1 < 0.3 * 3600 < span.high


def test_demo_and_lookup_take_millijoules() -> None:
    assert DEMO.of(Usage(10, 0, 10, 0)).high < 10_000
    assert LOOKUP == (5000, 7071, 10_000)
