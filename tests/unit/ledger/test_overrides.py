"""joulegate.toml as the ledger reads it."""

import tomllib
from decimal import Decimal

import pytest

from services.ledger.overrides import DeclaredEnergy, DeclaredPrice, Provider, read_overrides
from services.runtime.settings import SettingsError

FILE = """
[providers.lab]
kind = "openai"
base_url = "http://127.0.0.1:9000/v1"
models = ["small"]
zone = "FRA"

[providers.ollama]
zone = "DEU"

[[models]]
provider = "lab"
model = "large"
tier = 4
input_usd_per_million = 0.1
output_usd_per_million = 8
joules_per_output_token = 2

[[models]]
provider = "lab"
model = "small"
tier = 1
joules_per_output_token = 0.5
joules_per_input_token = 0.01
"""


def test_providers_and_prices_are_read_and_the_rest_is_left_to_others() -> None:
    overrides = read_overrides(tomllib.loads(FILE))
    assert overrides.provider("lab") == Provider("lab", "openai", "http://127.0.0.1:9000/v1", "FRA")
    assert overrides.provider("ollama") == Provider("ollama", "ollama", "", "DEU")
    assert overrides.provider("groq") == Provider("groq", "groq")
    assert overrides.prices == {("lab", "large"): DeclaredPrice(Decimal("0.1"), Decimal(8))}
    assert overrides.energies == {("lab", "large"): DeclaredEnergy(2), ("lab", "small"): DeclaredEnergy(0.5, 0.01)}


@pytest.mark.parametrize(
    "table",
    [
        'provider = "a"\nmodel = "b"\ninput_usd_per_million = 1',
        'provider = "a"\nmodel = "b"\ninput_usd_per_million = 1\noutput_usd_per_million = -1',
        'provider = "a"\nmodel = "b"\ninput_usd_per_million = 1\noutput_usd_per_million = nan',
        'provider = "a"\nmodel = "b"\ninput_usd_per_million = true\noutput_usd_per_million = 1',
        'provider = "a"\nmodel = "b"\ninput_usd_per_million = "1"\noutput_usd_per_million = 1',
        'provider = "a"\nmodel = "b"\ninput_usd_per_million = 1e9\noutput_usd_per_million = 1',
        'model = "b"\ninput_usd_per_million = 1\noutput_usd_per_million = 1',
        'provider = "a"\nmodel = "b"\njoules_per_input_token = 1',
        'provider = "a"\nmodel = "b"\njoules_per_output_token = -1',
        'provider = "a"\nmodel = "b"\njoules_per_output_token = "1"',
        'provider = "a"\nmodel = "b"\njoules_per_output_token = inf',
        'provider = "a"\nmodel = "b"\njoules_per_output_token = 1\njoules_per_input_token = true',
        'provider = "a"\njoules_per_output_token = 1',
        'provider = "a"\nmodel = "b"\nwatts = 1',
    ],
)
def test_figure_that_cannot_be_meant_stops_the_start(table: str) -> None:
    with pytest.raises(SettingsError):
        read_overrides(tomllib.loads(f"[[models]]\n{table}"))


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read_overrides({"providers": {"a": {"zone": 1, "kind": 2}, "b": 3}, "models": [4]})
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("kind", "base_url", "is_here"),
    [
        ("ollama", "", True),
        ("ollama", "https://ollama.example.com", True),
        ("openai", "http://127.0.0.1:8000/v1", True),
        ("openai", "http://[::1]:8000/v1", True),
        ("openai", "http://192.168.1.7/v1", True),
        ("openai", "http://vllm:8000/v1", True),
        ("openai", "http://Box.local/v1", True),
        ("openai", "https://api.groq.com/openai/v1", False),
        ("openai", "http://8.8.8.8/v1", False),
        ("openai", "http://[broken/v1", False),
        ("anthropic", "", False),
    ],
)
def test_own_machines_are_known_by_kind_and_address(kind: str, base_url: str, is_here: bool) -> None:
    assert Provider("any", kind, base_url).is_here is is_here
