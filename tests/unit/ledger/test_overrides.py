"""joulegate.toml as the ledger reads it."""

import tomllib
from decimal import Decimal

import pytest

from services.ledger.overrides import DeclaredPrice, Provider, read_overrides
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

[[models]]
provider = "lab"
model = "small"
tier = 1
"""


def test_providers_and_prices_are_read_and_the_rest_is_left_to_others() -> None:
    overrides = read_overrides(tomllib.loads(FILE))
    assert overrides.provider("lab") == Provider("lab", "openai", "http://127.0.0.1:9000/v1", "FRA")
    assert overrides.provider("ollama") == Provider("ollama", "ollama", "", "DEU")
    assert overrides.provider("groq") == Provider("groq", "groq")
    assert overrides.prices == {("lab", "large"): DeclaredPrice(Decimal("0.1"), Decimal(8))}


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
    ],
)
def test_price_that_cannot_be_meant_stops_the_start(table: str) -> None:
    with pytest.raises(SettingsError):
        read_overrides(tomllib.loads(f"[[models]]\n{table}"))


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read_overrides({"providers": {"a": {"zone": 1, "kind": 2}, "b": 3}, "models": [4]})
    assert len(caught.value.problems) == 4
