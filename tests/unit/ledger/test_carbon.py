"""Carbon follows the grid that the provider draws from."""

import pytest

from services.ledger import tables
from services.ledger.carbon import Grid, check_zones, grid_at, grid_of, regions
from services.ledger.cost import Usage
from services.ledger.overrides import Provider
from services.runtime.settings import SettingsError
from tests.unit.ledger.samples import new_figurer


def test_a_kilowatt_hour_in_france_is_41_grams() -> None:
    grid = grid_of(Provider("lab", "openai", zone="FRA"), "WOR")
    assert grid.micrograms(3_600_000_000_000) == 41_440_000


def test_rounding_is_half_up() -> None:
    grid = Grid("X", 1, "X")
    assert [grid.micrograms(amount) for amount in (1_799_999_999_999, 1_800_000_000_000)] == [0, 1]


@pytest.mark.parametrize(
    ("provider", "zone"),
    [
        # As configured.
        (Provider("openai", "openai", zone="FRA"), "FRA"),
        (Provider("lab", "openai", "http://127.0.0.1/v1", "eu-north-1"), "SWE"),
        (Provider("lab", "azure", "https://x.openai.azure.com", "UKSouth"), "GBR"),
        # As the address says.
        (Provider("cloud", "openai", "https://bedrock-runtime.eu-west-3.amazonaws.com/openai/v1"), "FRA"),
        (Provider("cloud", "openai", "https://asia-northeast1-aiplatform.googleapis.com/v1"), "JPN"),
        (Provider("work", "azure", "https://lab.swedencentral.models.ai.azure.com"), "SWE"),
        # Beside the gateway.
        (Provider("ollama", "ollama"), "NOR"),
        (Provider("vllm", "openai", "http://10.0.0.7:8000/v1"), "NOR"),
        (Provider("demo", "demo"), "NOR"),
        # The vendor's home.
        (Provider("openai", "openai"), "USA"),
        (Provider("mine", "openai", "https://api.openai.com/v1"), "USA"),
        (Provider("mistral", "mistral"), "SWE"),
        (Provider("gemini", "gemini"), "USA"),
        (Provider("groq", "groq"), "USA"),
        (Provider("deepseek", "deepseek"), "CHN"),
        # Nobody knows.
        (Provider("lab", "openai", "https://llm.example.com/v1"), "WOR"),
        (Provider("openai", "openai", "https://proxy.example.com/v1"), "WOR"),
        (Provider("openrouter", "openrouter"), "WOR"),
        (Provider("", ""), "WOR"),
    ],
)
def test_place_is_the_most_certain_that_is_known(provider: Provider, zone: str) -> None:
    assert grid_of(provider, "NOR").zone == zone


def test_every_region_is_in_a_country_with_a_figure_and_is_named_once() -> None:
    assert len(regions()) == sum(len(row["names"]) for row in tables.rows("regions"))
    assert {name for name in regions() if grid_at(name) is None} == set()
    assert all(name == name.lower() for name in regions())
    assert {row["country"] for row in tables.rows("homes") if grid_at(row["country"]) is None} == set()


def test_a_region_keeps_its_name_for_live_sources_and_is_booked_as_its_country() -> None:
    grid = grid_at("EU-West-3")
    assert grid is not None
    assert (grid.zone, grid.place) == ("FRA", "eu-west-3")


def test_hits_and_local_models_draw_the_gateways_power() -> None:
    figurer = new_figurer(gateway_place="FRA")
    hit = figurer.of_hit(0)
    local = figurer.of_attempt("ollama", "llama3.1:8b", "", Usage(1000, 0, 1000, 0), 0)
    abroad = figurer.of_attempt("openai", "gpt-4o", "", Usage(1000, 0, 1000, 0), 0)
    assert (hit.zone, local.zone, abroad.zone) == ("FRA", "FRA", "USA")
    assert local.carbon_micrograms / local.energy.point == pytest.approx(41.44e6 / 3.6e12, rel=1e-3)
    assert abroad.carbon_micrograms / abroad.energy.point > 5 * local.carbon_micrograms / local.energy.point


def test_unknown_place_stops_the_start() -> None:
    check_zones([Provider("a", "a", zone="FRA"), Provider("b", "b"), Provider("c", "c", zone="us-central1")], "WOR")
    with pytest.raises(SettingsError) as caught:
        check_zones([Provider("a", "a", zone="XXX"), Provider("b", "b", zone="us-middle-1")], "Paris")
    assert len(caught.value.problems) == 3
