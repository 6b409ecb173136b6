"""Live sources speak as they are documented, and one that is dead gives way to the table."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import aiohttp
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from services.ledger import live_grids
from services.ledger.carbon import Grid, grid_at
from services.ledger.carbon_sources import MOST_BYTES, CarbonSource, ElectricityMaps, Intensity, NationalGrid, SourceError, WattTime
from services.ledger.cost import Usage
from services.ledger.live_grids import STALE_S, LiveGrids
from services.ledger.overrides import Overrides, Provider
from services.runtime.secret import Secret
from tests.fakes.carbon_upstream import KEY, PASSWORD, USER, CarbonUpstream, carbon_upstream
from tests.unit.ledger.samples import HeldClock, new_figurer

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
MAKERS: dict[str, Callable[[aiohttp.ClientSession, str], CarbonSource]] = {
    "electricity-maps": lambda session, address: ElectricityMaps(session, Secret(KEY), address),
    "watttime": lambda session, address: WattTime(session, USER, Secret(PASSWORD), address),
    "national-grid": lambda session, address: NationalGrid(session, address),
}


@pytest.fixture
async def upstream() -> AsyncIterator[CarbonUpstream]:
    async with carbon_upstream() as fake:
        yield fake


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(params=MAKERS)
def source(request: pytest.FixtureRequest, session: aiohttp.ClientSession, upstream: CarbonUpstream) -> CarbonSource:
    return MAKERS[request.param](session, upstream.address)


async def test_every_source_says_grams_and_their_time(source: CarbonSource) -> None:
    told = await source.intensity("ZONE", NOON)
    assert told.grams_per_kwh == pytest.approx(123)
    assert told.unix_s == NOON


async def test_electricity_maps_is_asked_for_the_zone(session: aiohttp.ClientSession, upstream: CarbonUpstream) -> None:
    await MAKERS["electricity-maps"](session, upstream.address).intensity("US-CAL-CISO", NOON)
    assert upstream.asked == [("/v3/carbon-intensity/latest", {"zone": "US-CAL-CISO"})]


async def test_watttime_is_asked_for_averages_and_logged_into_again_when_the_token_has_run_out(
    session: aiohttp.ClientSession, upstream: CarbonUpstream
) -> None:
    source = MAKERS["watttime"](session, upstream.address)
    await source.intensity("PJM_DC", NOON)
    await source.intensity("PJM_DC", NOON)
    assert [path for path, _ in upstream.asked] == ["/login", "/v3/historical", "/v3/historical"]
    window = {"start": "2026-11-21T11:00:00+00:00", "end": "2026-11-21T12:00:00+00:00"}
    assert upstream.asked[1][1] == {"region": "PJM_DC", "signal_type": "co2_aoer", **window}
    upstream.revoke()
    assert (await source.intensity("PJM_DC", NOON)).grams_per_kwh == pytest.approx(123)
    assert [path for path, _ in upstream.asked[3:]] == ["/v3/historical", "/login", "/v3/historical"]


async def test_half_hour_without_an_estimate_yet_has_its_forecast(session: aiohttp.ClientSession, upstream: CarbonUpstream) -> None:
    upstream.grams = 0
    assert await NationalGrid(session, upstream.address).intensity("GB", NOON) == Intensity(266, NOON)


BAD_BODIES = [
    b"",
    b"no",
    b"[]",
    b"{}",
    b'{"data": []}',
    b'{"data": [{}], "meta": {"units": "lbs_co2_per_mwh"}}',
    b'{"data": [{"point_time": "2026-11-21T12:00Z", "value": 1}], "meta": {"units": "percentile"}}',
    b'{"data": [{"from": "2026-11-21T12:00Z", "intensity": {"forecast": -1}}]}',
    b'{"carbonIntensity": null, "datetime": "2026-11-21T12:00:00Z"}',
    b'{"carbonIntensity": 1e9, "datetime": "2026-11-21T12:00:00Z"}',
    b'{"carbonIntensity": NaN, "datetime": "2026-11-21T12:00:00Z"}',
    b'{"carbonIntensity": true, "datetime": "2026-11-21T12:00:00Z"}',
    b'{"carbonIntensity": 100, "datetime": "soon"}',
    b'{"carbonIntensity": 100, "datetime": 7}',
    b'"' + b"x" * MOST_BYTES + b'"',
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: body[:40].decode())
async def test_nonsense_is_an_error(source: CarbonSource, upstream: CarbonUpstream, body: bytes) -> None:
    upstream.body = body
    with pytest.raises(SourceError):
        await source.intensity("ZONE", NOON)


@pytest.mark.parametrize("status", [302, 401, 403, 404, 429, 500])
async def test_refusal_is_an_error_that_tells_no_secret(source: CarbonSource, upstream: CarbonUpstream, status: int) -> None:
    upstream.status = status
    with pytest.raises(SourceError) as caught:
        await source.intensity("ZONE", NOON)
    assert not any(secret in str(caught.value) for secret in (KEY, PASSWORD))
    # A redirection could carry the key anywhere.
    assert all(path != "/elsewhere" for path, _ in upstream.asked)


async def test_nobody_there_is_an_error(session: aiohttp.ClientSession) -> None:
    with pytest.raises(SourceError):
        await NationalGrid(session, "http://127.0.0.1:1").intensity("GB", NOON)


def grid(place: str) -> Grid:
    found = grid_at(place)
    assert found is not None
    return found


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"joulegate_ledger_carbon_{name}_total", labels) or 0.0


async def test_live_figure_is_used_until_it_is_two_hours_old(session: aiohttp.ClientSession, upstream: CarbonUpstream) -> None:
    clock = HeldClock()
    live = LiveGrids(MAKERS["electricity-maps"](session, upstream.address), live_grids.zones("electricity-maps", ()), clock, 300)
    oregon = grid("us-west1")
    assert live.at(oregon, NOON) is oregon  # nobody has been asked yet
    await live.poll()
    assert upstream.asked[0][1] == {"zone": "US-NW-PACW"}
    assert live.at(oregon, NOON) == Grid("USA", 123_000_000, "us-west1", is_live=True)
    assert live.at(oregon, NOON + STALE_S).micrograms_per_kwh == 123_000_000
    before = count("fallbacks")
    assert live.at(oregon, NOON + STALE_S + 1) is oregon
    assert count("fallbacks") == before + 1


async def test_each_place_is_asked_for_once_in_a_while(session: aiohttp.ClientSession, upstream: CarbonUpstream) -> None:
    clock = HeldClock()
    live = LiveGrids(MAKERS["electricity-maps"](session, upstream.address), live_grids.zones("electricity-maps", ()), clock, 300)
    for place in ("FRA", "DEU", "FRA", "WOR"):
        live.at(grid(place), NOON)
    await live.poll()
    await live.poll()
    assert [query["zone"] for _, query in upstream.asked] == ["FR", "DE"]
    clock.time += 300
    await live.poll()
    assert len(upstream.asked) == 4


async def test_dead_source_is_said_once_and_counted_while_the_table_stands_in(
    session: aiohttp.ClientSession, upstream: CarbonUpstream
) -> None:
    clock = HeldClock()
    live = LiveGrids(NationalGrid(session, upstream.address), live_grids.zones("national-grid", ()), clock, 300)
    britain = grid("GBR")
    upstream.status = 500
    failed, answered = count("polls", source="national-grid", result="failed"), count("polls", source="national-grid", result="answered")
    with capture_logs() as lines:
        for _ in range(3):
            assert live.at(britain, NOON) is britain
            await live.poll()
            clock.time += 300
        upstream.status = 200
        await live.poll()
    assert [line["event"] for line in lines] == ["carbon_source_silent", "carbon_source_back"]
    assert lines[0]["cause"] == "status 500"
    assert live.at(britain, NOON).micrograms_per_kwh == 123_000_000
    assert count("polls", source="national-grid", result="failed") == failed + 3
    assert count("polls", source="national-grid", result="answered") == answered + 1


async def test_rows_are_booked_with_the_live_figure(session: aiohttp.ClientSession, upstream: CarbonUpstream) -> None:
    live = LiveGrids(NationalGrid(session, upstream.address), live_grids.zones("national-grid", ()), HeldClock(), 300)
    overrides = Overrides(providers={"lab": Provider("lab", "openai", "https://llm.example.com", "uksouth")})
    figurer = new_figurer(overrides, hours=live)
    usage = Usage(10, 0, 10, 0)
    before = figurer.of_attempt("lab", "gpt-4o", "", usage, NOON)
    await live.poll()
    after = figurer.of_attempt("lab", "gpt-4o", "", usage, NOON)
    assert (before.zone, after.zone) == ("GBR", "GBR")
    assert before.carbon_micrograms == grid("GBR").micrograms(before.energy.point)
    assert after.carbon_micrograms == round(after.energy.point * 123 / 3.6e6)


def test_places_are_named_as_the_source_names_them() -> None:
    maps = live_grids.zones("electricity-maps", ("WOR=EU", " us-west-2 = US-NW-BPAT"))
    assert (maps["eu-north-1"], maps["SWE"], maps["us-west-2"], maps["WOR"]) == ("SE-SE3", "SE", "US-NW-BPAT", "EU")
    assert set(live_grids.zones("national-grid", ())) == {"GBR", "eu-west-2", "europe-west2", "uksouth", "ukwest"}
    assert live_grids.zones("watttime", ("us-east-1=PJM_DC",)) == {"us-east-1": "PJM_DC"}
    for pair in ("FRA", "FRA=", "=FR", "XXX=FR"):
        with pytest.raises(ValueError, match="is not a place"):
            live_grids.zones("watttime", (pair,))
