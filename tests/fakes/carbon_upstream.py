"""A fake of the live carbon sources over real HTTP: it says what each source's documentation shows, and checks the keys."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEY = "maps-canary-key"
USER, PASSWORD = "lab", "watt-canary-password"


@dataclass
class CarbonUpstream:
    """What is told, and what was asked. `status` other than 200 is a source that is ill."""

    grams: float = 123.0
    moment: str = "2026-11-21T12:00:00.000Z"
    status: int = 200
    body: bytes | None = None
    tokens: list[str] = field(default_factory=lambda: ["token-1", "token-2", "token-3"])
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    address: str = ""
    _valid: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, dict(request.query)))
        if self.status != 200:
            return web.Response(status=self.status, headers={"location": "/elsewhere"})
        if self.body is not None:
            return web.Response(body=self.body, content_type="application/json")
        return {
            "/v3/carbon-intensity/latest": self._maps,
            "/login": self._login,
            "/v3/historical": self._historical,
            "/intensity": self._intensity,
        }[request.path](request)

    def revoke(self) -> None:
        """Lets WattTime's token run out."""
        self._valid = ""

    def _maps(self, request: web.Request) -> web.Response:
        if request.headers.get("auth-token") != KEY:
            return web.json_response({"status": "error", "message": "Invalid auth-token"}, status=401)
        told = {"zone": request.query["zone"], "carbonIntensity": self.grams, "datetime": self.moment, "updatedAt": self.moment}
        return web.json_response({**told, "emissionFactorType": "lifecycle", "isEstimated": True})

    def _login(self, request: web.Request) -> web.Response:
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers.get("authorization") != expected:
            return web.Response(status=401, text="Invalid username or password")
        self._valid = self.tokens.pop(0)
        return web.json_response({"token": self._valid})

    def _historical(self, request: web.Request) -> web.Response:
        if not self._valid or request.headers.get("authorization") != f"Bearer {self._valid}":
            return web.Response(status=401)
        pounds = self.grams / 0.45359237
        points = [{"point_time": "2026-11-21T11:00:00+00:00", "value": 1.0}, {"point_time": self.moment, "value": pounds}]
        meta = {"region": request.query["region"], "signal_type": request.query["signal_type"], "units": "lbs_co2_per_mwh"}
        return web.json_response({"data": points, "meta": meta})

    def _intensity(self, request: web.Request) -> web.Response:
        told: dict[str, Any] = {"forecast": 266, "actual": self.grams or None, "index": "moderate"}
        return web.json_response({"data": [{"from": "2026-11-21T12:00Z", "to": "2026-11-21T12:30Z", "intensity": told}]})


@asynccontextmanager
async def carbon_upstream() -> AsyncIterator[CarbonUpstream]:
    """The fake, on a free port of loopback."""
    fake = CarbonUpstream()
    application = web.Application()
    application.router.add_get("/{path:.*}", fake.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        fake.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield fake
    finally:
        await runner.cleanup()
