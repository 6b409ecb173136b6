"""The newest figures of a live source: asked for every few minutes, by the places that the books have seen, and kept for two hours."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.ledger import metrics
from services.ledger.carbon import ELECTRICITY_MAPS, NATIONAL_GRID, Grid, grid_at, regions
from services.ledger.carbon_sources import CarbonSource, Intensity, SourceError
from services.runtime import logs
from services.runtime.clock import Clock

log = logs.get(__name__)

# An older figure says less about the hour than the annual average does.
STALE_S: Final = 7200
_TICK_S: Final = 1.0


def zones(source: str, stated: Sequence[str]) -> Mapping[str, str]:
    """How a source names our places: as `place=zone` pairs state, else as the table has it. Raises ValueError for a pair that is none."""
    known: dict[str, str] = {}
    for name, region in regions().items():
        if source == ELECTRICITY_MAPS:
            known |= {name: region.grid, region.country: region.grid.partition("-")[0]}
        elif source == NATIONAL_GRID and region.country == "GBR":
            known |= {name: region.grid, region.country: region.grid}
    for pair in stated:
        place, _, zone = (part.strip() for part in pair.partition("="))
        if not zone or grid_at(place) is None:
            raise ValueError(f"{pair!r} is not a place, `=` and the source's name for it")
        known[place] = zone
    return known


@dataclass(slots=True)
class _Seen:
    """A place that the source is asked for: its name there, what was last said, when to ask again (monotonic), and whether it fails."""

    zone: str
    newest: Intensity | None = None
    due: float = 0.0
    is_silent: bool = False


class LiveGrids:
    """Written by the event loop, read by the thread that books. A source that is silent is replaced by the table, and said so once."""

    def __init__(self, source: CarbonSource, zones: Mapping[str, str], clock: Clock, poll_s: float) -> None:
        self._source = source
        self._zones = zones
        self._clock = clock
        self._poll_s = poll_s
        self._seen: dict[str, _Seen] = {}

    def at(self, grid: Grid, unix_s: float) -> Grid:
        """The grid at that time; the annual average where the source does not know it, or not yet."""
        zone = self._zones.get(grid.place)
        if zone is None:
            return grid
        seen = self._seen.get(grid.place)
        if seen is None:
            seen = self._seen[grid.place] = _Seen(zone)
        newest = seen.newest
        if newest is None or abs(unix_s - newest.unix_s) > STALE_S:
            metrics.CARBON_FALLBACKS.inc()
            return grid
        return grid._replace(micrograms_per_kwh=round(newest.grams_per_kwh * 1e6), is_live=True)

    async def run(self) -> None:
        """Asks for ever."""
        while True:
            await self.poll()
            await asyncio.sleep(_TICK_S)

    async def poll(self) -> None:
        """Asks for every place whose time has come."""
        now = self._clock.monotonic()
        for place, seen in list(self._seen.items()):
            if seen.due > now:
                continue
            seen.due = now + self._poll_s
            try:
                seen.newest = await self._source.intensity(seen.zone, self._clock.now())
            except SourceError as error:
                metrics.CARBON_POLLS.labels(self._source.name, "failed").inc()
                if not seen.is_silent:
                    log.warning("carbon_source_silent", source=self._source.name, place=place, cause=str(error), instead="annual average")
                seen.is_silent = True
                continue
            metrics.CARBON_POLLS.labels(self._source.name, "answered").inc()
            if seen.is_silent:
                log.info("carbon_source_back", source=self._source.name, place=place)
            seen.is_silent = False
