"""The ledger asks a live source of carbon intensity when it is told to, and books what that says."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from joulegate.ledger.v1 import admin_service_pb2, admin_service_pb2_grpc, ledger_service_pb2_grpc
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from services.ledger.__main__ import build
from services.ledger.settings import LedgerSettings
from services.runtime.settings import SettingsError, load
from tests.contract.channels import new_mesh, serve
from tests.fakes.carbon_upstream import KEY, PASSWORD, USER, carbon_upstream
from tests.unit.ledger.samples import BEGAN, attempt, settlement

PATIENCE_S = 30
SOURCES: dict[str, Mapping[str, str]] = {
    "electricity-maps": {"ELECTRICITY_MAPS_API_KEY": KEY},
    "watttime": {"WATTTIME_USERNAME": USER, "WATTTIME_PASSWORD": PASSWORD, "CARBON_ZONES": "GBR=UK"},
    "national-grid": {},
}


@pytest.mark.parametrize("name", SOURCES)
async def test_rows_carry_what_the_source_says(tmp_path: Path, name: str) -> None:
    moment = BEGAN.ToDatetime().isoformat() + "+00:00"
    config = tmp_path / "joulegate.toml"
    config.write_text('[providers.lab]\nkind = "openai"\nbase_url = "https://llm.example.com"\nzone = "GBR"\n')
    async with carbon_upstream() as upstream:
        upstream.grams, upstream.moment = 77.0, moment
        if name == "national-grid":
            upstream.body = b'{"data": [{"from": "%s", "intensity": {"forecast": 1, "actual": 77}}]}' % moment.encode()
        source = {"CARBON_SOURCE": name, "CARBON_SOURCE_URL": upstream.address + "/"}
        settings = load(
            LedgerSettings,
            {"JOULEGATE_DATA_DIR": str(tmp_path), "JOULEGATE_CONFIG": str(config), "ADMIN_API_KEY": "key", **source, **SOURCES[name]},
        )
        mesh = new_mesh()
        async with build(settings, mesh), serve(mesh, "grpc") as channel:
            admin = admin_service_pb2_grpc.AdminServiceStub(channel)
            call = ledger_service_pb2_grpc.LedgerServiceStub(channel).Book()
            await call.write(pb.BookRequest(hello=pb.Hello(router_id="router")))
            await call.read()
            async with asyncio.timeout(PATIENCE_S):
                for number in range(1000):
                    # Another request each time: the first ones are booked before the source has been asked for their place.
                    row = settlement(f"r{number}", attempt(provider="lab"))
                    await call.write(pb.BookRequest(settlements=[row]))
                    await call.read()
                    listed = await admin.ListEntries(admin_service_pb2.ListEntriesRequest(), metadata=(("authorization", "Bearer key"),))
                    newest = max(listed.entries, key=lambda entry: int(entry.request_id[1:]))
                    if newest.carbon_micrograms == round(newest.energy_microjoules * 77 / 3.6e6):
                        break
                    await asyncio.sleep(0.05)
            assert newest.zone == "GBR"
            call.cancel()


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"CARBON_SOURCE": "electricity-maps"}, "ELECTRICITY_MAPS_API_KEY"),
        ({"CARBON_SOURCE": "watttime", "WATTTIME_USERNAME": "lab"}, "WATTTIME_PASSWORD"),
        ({"CARBON_SOURCE": "national-grid", "CARBON_ZONES": "Paris=FR"}, "Paris=FR"),
        ({"CARBON_SOURCE": "weather"}, "weather"),
        ({"CARBON_SOURCE_URL": "ftp://x"}, "ftp://x"),
        ({"CARBON_POLL_SECONDS": "1"}, "CARBON_POLL_SECONDS"),
        ({"GATEWAY_ZONE": "Paris"}, "GATEWAY_ZONE"),
    ],
)
async def test_what_cannot_work_stops_the_start(tmp_path: Path, variables: Mapping[str, str], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        async with build(load(LedgerSettings, {"JOULEGATE_DATA_DIR": str(tmp_path), **variables}), new_mesh()):
            pass


def test_settings_show_no_key(tmp_path: Path) -> None:
    variables = {"ELECTRICITY_MAPS_API_KEY": KEY, "WATTTIME_PASSWORD": PASSWORD}
    shown = repr(load(LedgerSettings, variables))
    assert KEY not in shown and PASSWORD not in shown
