"""Live sources of carbon intensity: who tells what a grid emits now, as an average over what feeds it.

Each is asked for one zone, under the name that the zone has there. Marginal figures are for decisions, not for books, so none is read.
"""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

import aiohttp

from services.ledger.carbon import ELECTRICITY_MAPS, NATIONAL_GRID, WATTTIME
from services.runtime.secret import Secret

GRAMS_PER_KWH_OF_POUNDS_PER_MWH: Final = 0.45359237
# Nothing burnt for electricity emits more; what is above is another unit.
MOST_GRAMS_PER_KWH: Final = 3000
MOST_BYTES: Final = 1_000_000
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)
# WattTime takes some minutes to know.
_WATTTIME_WINDOW: Final = timedelta(hours=1)


class SourceError(Exception):
    """A source that did not say what it was asked."""


class Intensity(NamedTuple):
    """What a grid emits, and the time that the figure is of, in seconds since 1970."""

    grams_per_kwh: float
    unix_s: float


class CarbonSource(Protocol):
    """Somebody who knows what grids emit."""

    @property
    def name(self) -> str: ...

    async def intensity(self, zone: str, at: float) -> Intensity:
        """The newest figure at that time, in seconds since 1970. Raises SourceError."""
        ...


class ElectricityMaps:
    """https://docs.electricitymaps.com: life-cycle averages by the hour, everywhere."""

    name = ELECTRICITY_MAPS
    address = "https://api.electricitymaps.com"

    def __init__(self, session: aiohttp.ClientSession, key: Secret, address: str = address) -> None:
        self._session = session
        self._key = key
        self._address = address

    async def intensity(self, zone: str, at: float) -> Intensity:
        url = f"{self._address}/v3/carbon-intensity/latest"
        said = await _get(self._session, url, {"zone": zone}, {"auth-token": self._key.reveal()})
        return _intensity(said.get("carbonIntensity"), said.get("datetime"))


class WattTime:
    """https://docs.watttime.org: averages (`co2_aoer`) every five minutes. A token holds for half an hour."""

    name = WATTTIME
    address = "https://api.watttime.org"

    def __init__(self, session: aiohttp.ClientSession, user: str, password: Secret, address: str = address) -> None:
        self._session = session
        self._user = user
        self._password = password
        self._address = address
        self._token = Secret("")

    async def intensity(self, zone: str, at: float) -> Intensity:
        end = datetime.fromtimestamp(at, UTC)
        window = {"start": (end - _WATTTIME_WINDOW).isoformat(timespec="seconds"), "end": end.isoformat(timespec="seconds")}
        asked = {"region": zone, "signal_type": "co2_aoer", **window}
        said = await self._history(asked)
        points = said.get("data")
        if not isinstance(points, list) or not points or not isinstance(points[-1], Mapping):
            raise SourceError("no figures")
        unit = meta.get("units") if isinstance(meta := said.get("meta"), Mapping) else None
        if unit != "lbs_co2_per_mwh":
            raise SourceError(f"figures in {unit!r}")
        value = points[-1].get("value")
        return _intensity(value * GRAMS_PER_KWH_OF_POUNDS_PER_MWH if isinstance(value, int | float) else None, points[-1].get("point_time"))

    async def _history(self, asked: Mapping[str, str]) -> Mapping[str, Any]:
        url = f"{self._address}/v3/historical"
        if self._token.is_sendable:
            try:
                return await _get(self._session, url, asked, {"authorization": f"Bearer {self._token.reveal()}"})
            except _RefusedError:
                pass
        login = base64.b64encode(f"{self._user}:{self._password.reveal()}".encode()).decode()
        said = await _get(self._session, f"{self._address}/login", {}, {"authorization": f"Basic {login}"})
        self._token = Secret(str(said.get("token", "")))
        if not self._token.is_sendable:
            raise SourceError("no token")
        return await _get(self._session, url, asked, {"authorization": f"Bearer {self._token.reveal()}"})


class NationalGrid:
    """https://carbonintensity.org.uk: Great Britain by the half-hour, what is burnt only. Free, without a key."""

    name = NATIONAL_GRID
    address = "https://api.carbonintensity.org.uk"

    def __init__(self, session: aiohttp.ClientSession, address: str = address) -> None:
        self._session = session
        self._address = address

    async def intensity(self, zone: str, at: float) -> Intensity:
        said = await _get(self._session, f"{self._address}/intensity", {}, {})
        match said:
            case {"data": [{"from": start, "intensity": {"forecast": forecast, **rest}}, *_]}:
                # The estimate of what was comes some time after the forecast of it.
                actual = rest.get("actual")
                return _intensity(forecast if actual is None else actual, start)
        raise SourceError("no figures")


class _RefusedError(SourceError):
    """A key or token that does not hold, or no longer."""


async def _get(session: aiohttp.ClientSession, url: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Mapping[str, Any]:
    """The JSON object at an address. Raises SourceError, whose words have no secret in them."""
    try:
        async with session.get(url, params=query, headers=headers, timeout=_TIMEOUT, allow_redirects=False) as response:
            if response.status in (401, 403):
                raise _RefusedError(f"status {response.status}")
            if response.status != 200:
                raise SourceError(f"status {response.status}")
            said = json.loads(await _body(response))
    except (aiohttp.ClientError, TimeoutError) as error:
        raise SourceError(type(error).__name__) from error
    except ValueError as error:
        raise SourceError("no JSON") from error
    if not isinstance(said, Mapping):
        raise SourceError("no object")
    return said


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MOST_BYTES:
            raise SourceError("too long an answer")
    return bytes(body)


def _intensity(grams: Any, moment: Any) -> Intensity:
    if isinstance(grams, bool) or not isinstance(grams, int | float) or not 0 <= grams <= MOST_GRAMS_PER_KWH:
        raise SourceError(f"an intensity of {str(grams)[:40]}")
    try:
        then = datetime.fromisoformat(moment)
    except (TypeError, ValueError):
        raise SourceError(f"a time of {str(moment)[:40]}") from None
    return Intensity(grams, (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp())
