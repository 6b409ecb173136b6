"""Carbon: grams of CO2 equivalent per kilowatt-hour, by where the machines draw their power.

The figures are the annual averages by country that EcoLogits carries (Our World in Data, ADEME), unless a live source knows the hour. A
place is a country (ISO 3166 alpha-3) or a region of a cloud, which is in one.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final, NamedTuple, Protocol

from joulegate.ledger.v1.entry_pb2 import CarbonSignal
from services.ledger import tables
from services.ledger.aliases import CATALOGUE_OF
from services.ledger.overrides import Provider
from services.runtime.settings import SettingsError

WORLD: Final = "WOR"
# The live sources there are.
ELECTRICITY_MAPS: Final = "electricity-maps"
WATTTIME: Final = "watttime"
NATIONAL_GRID: Final = "national-grid"
# Bound once: looking a name up in a protobuf enum takes longer than everything else here.
_LIVE: Final = CarbonSignal.CARBON_SIGNAL_LIVE_AVERAGE
_ANNUAL: Final = CarbonSignal.CARBON_SIGNAL_ANNUAL_AVERAGE
_MICROJOULES_PER_KWH: Final = 3_600_000_000_000


class Grid(NamedTuple):
    """A place's electricity, in whole micrograms of CO2 equivalent per kilowatt-hour, so that carbon too is added up exactly."""

    zone: str
    micrograms_per_kwh: int
    # As it was said: the zone, or a cloud's region in it.
    place: str
    # Whether a live source told it, and not the table.
    is_live: bool = False

    @property
    def signal(self) -> CarbonSignal.ValueType:
        return _LIVE if self.is_live else _ANNUAL

    def micrograms(self, microjoules: int) -> int:
        """Carbon of so much energy, rounded half up."""
        return (microjoules * self.micrograms_per_kwh + _MICROJOULES_PER_KWH // 2) // _MICROJOULES_PER_KWH


class Hours(Protocol):
    """What grids emit at the hour."""

    def at(self, grid: Grid, unix_s: float) -> Grid:
        """The grid as it was then, or as it came when that is not known."""
        ...


class Always:
    """Grids that are always as in the table."""

    def at(self, grid: Grid, unix_s: float) -> Grid:
        return grid


class Region(NamedTuple):
    """A region of a cloud: its country, and its grid as Electricity Maps names it."""

    country: str
    grid: str


@cache
def regions() -> Mapping[str, Region]:
    """The regions of the clouds, by their names."""
    return {name: Region(row["country"], row["grid"]) for row in tables.rows("regions") for name in row["names"]}


def grid_of(provider: Provider, gateway_place: str) -> Grid:
    """Where the provider's machines are: as configured, as its address says, beside the gateway, at the vendor's home, or in the world."""
    place = provider.zone or _region_in(provider.host) or (gateway_place if provider.is_here else _home(provider))
    return grid_at(place) or world()


def check_zones(providers: Iterable[Provider], gateway_place: str) -> None:
    """Raises SettingsError for places that have no figure."""
    wrong = "not a region of AWS, Google Cloud or Azure, and not an ISO 3166 alpha-3 code with a known grid"
    problems = [f"[providers.{each.name}] zone = {each.zone!r}: {wrong}" for each in providers if each.zone and grid_at(each.zone) is None]
    if grid_at(gateway_place) is None:
        problems.append(f"GATEWAY_ZONE={gateway_place!r}: {wrong}")
    if problems:
        raise SettingsError(problems)


def grid_at(place: str) -> Grid | None:
    """The annual average of a country or region; None when there is no figure."""
    from ecologits.electricity_mix_repository import electricity_mixes

    name = place.lower()
    region = regions().get(name)
    zone = place if region is None else region.country
    mix = electricity_mixes.find_electricity_mix(zone)
    return None if mix is None else Grid(zone, round(mix.gwp * 1e9), place if region is None else name)


def world() -> Grid:
    """The average of everywhere."""
    grid = grid_at(WORLD)
    assert grid is not None, "the catalogue has a figure for the world"
    return grid


def _region_in(host: str) -> str:
    """The region that a cloud's host name says, as `bedrock-runtime.eu-west-3.amazonaws.com` does; empty when it says none."""
    labels = (label.removesuffix("-aiplatform") for label in host.split("."))
    return next((label for label in labels if label in regions()), "")


def _home(provider: Provider) -> str:
    """The vendor's country, by its name, its address or, where a protocol is one vendor's own, its kind."""
    from ecologits.tracers.utils import PROVIDER_CONFIG_MAP

    for row in tables.rows("homes"):
        if provider.host in row["hosts"] or (not provider.base_url and provider.name in row["names"]):
            return str(row["country"])
    # Everybody speaks OpenAI's protocol: as a kind it says nothing about the vendor.
    kind = "" if provider.kind == "openai" else provider.kind
    home = PROVIDER_CONFIG_MAP.get(CATALOGUE_OF.get(kind, ""))
    return WORLD if home is None else str(home.datacenter_location)
