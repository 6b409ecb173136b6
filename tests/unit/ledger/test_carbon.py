"""Carbon follows the grid that the provider draws from."""

import pytest

from services.ledger import carbon
from services.ledger.carbon import Grid, check_zones, grid_of
from services.ledger.overrides import Provider
from services.runtime.settings import SettingsError


def test_a_kilowatt_hour_in_france_is_41_grams() -> None:
    grid = grid_of(Provider("lab", "openai", zone="FRA"))
    assert grid.micrograms(3_600_000_000_000) == 41_440_000


def test_rounding_is_half_up() -> None:
    grid = Grid("X", 1)
    assert [grid.micrograms(amount) for amount in (1_799_999_999_999, 1_800_000_000_000)] == [0, 1]


@pytest.mark.parametrize(
    ("provider", "zone"),
    [
        (Provider("openai", "openai"), "USA"),
        (Provider("mistral", "mistral"), "SWE"),
        (Provider("openai", "openai", zone="FRA"), "FRA"),
        (Provider("groq", "groq"), "WOR"),
        (Provider("ollama", "ollama"), "WOR"),
        (Provider("", ""), "WOR"),
    ],
)
def test_configured_zone_beats_the_vendors_home_and_the_world_is_last(provider: Provider, zone: str) -> None:
    assert grid_of(provider).zone == zone


def test_gateway_is_somewhere_in_the_world() -> None:
    assert carbon.gateway_grid().zone == "WOR"


def test_unknown_zone_stops_the_start() -> None:
    check_zones([Provider("a", "a", zone="FRA"), Provider("b", "b")])
    with pytest.raises(SettingsError, match="XXX"):
        check_zones([Provider("a", "a", zone="XXX")])
