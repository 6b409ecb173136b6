"""Carbon: grams of CO2 equivalent per kilowatt-hour by zone, the annual averages that EcoLogits carries (Our World in Data, ADEME)."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from services.ledger.aliases import CATALOGUE_OF
from services.ledger.overrides import Provider
from services.runtime.settings import SettingsError

WORLD: Final = "WOR"
_MICROJOULES_PER_KWH: Final = 3_600_000_000_000


class Grid(NamedTuple):
    """A zone's electricity, in whole micrograms of CO2 equivalent per kilowatt-hour, so that carbon too is added up exactly."""

    zone: str
    micrograms_per_kwh: int

    def micrograms(self, microjoules: int) -> int:
        """Carbon of so much energy, rounded half up."""
        return (microjoules * self.micrograms_per_kwh + _MICROJOULES_PER_KWH // 2) // _MICROJOULES_PER_KWH


def grid_of(provider: Provider) -> Grid:
    """Where the provider's machines draw their power: as configured, else the vendor's home, else the world's average."""
    from ecologits.tracers.utils import PROVIDER_CONFIG_MAP

    home = PROVIDER_CONFIG_MAP.get(CATALOGUE_OF.get(provider.kind, ""))
    return _grid(provider.zone or (home.datacenter_location if home is not None else WORLD)) or _world()


def gateway_grid() -> Grid:
    """Where the gateway itself runs, which nobody told us."""
    return _world()


def check_zones(providers: Iterable[Provider]) -> None:
    """Raises SettingsError for zones that have no figure."""
    unknown = [provider for provider in providers if provider.zone and _grid(provider.zone) is None]
    if unknown:
        raise SettingsError(
            [f"[providers.{each.name}] zone = {each.zone!r}: not an ISO 3166 alpha-3 code with a known grid" for each in unknown]
        )


def _world() -> Grid:
    grid = _grid(WORLD)
    assert grid is not None, "the catalogue has a figure for the world"
    return grid


def _grid(zone: str) -> Grid | None:
    from ecologits.electricity_mix_repository import electricity_mixes

    mix = electricity_mixes.find_electricity_mix(zone)
    return None if mix is None else Grid(zone, round(mix.gwp * 1e9))
