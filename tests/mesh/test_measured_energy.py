"""What the machine's counters count while a model of this machine answers is in the books, and told to the client."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.fakes.openai_upstream import OpenAIUpstream, completion, stream
from tests.mesh.asking import CHAT, events_as_they_come, http_client, question
from tests.mesh.gateway import ONE_PROCESS, PATIENCE_S, provider_table, running
from tests.unit.dispatch.test_meter import zone

pytestmark = pytest.mark.asyncio(loop_scope="module")
TAKEN = 123_456


async def test_energy_of_a_model_on_this_machine_is_what_its_counters_counted(tmp_path: Path) -> None:
    counter = zone(tmp_path / "powercap", "rapl:0", "package-0", 0)
    (counter.parent / "max_energy_range_uj").write_text(str(10**12))
    environment = {"ENERGY_COUNTERS": "powercap", "POWERCAP_PATH": str(tmp_path / "powercap")}
    async with OpenAIUpstream() as lab:
        tables = provider_table("lab", lab.base_url, ["small"]) + provider_table("box", lab.base_url, ["stated"]) + "declared_watts = 250\n"
        async with running(tmp_path / "gateway", ONE_PROCESS, tables, **environment) as gateway, http_client(gateway) as http:
            counted = asyncio.Event()
            lab.script(stream("a", counted, "b"), completion("c"))
            async with http.stream("POST", CHAT, json=question(stream=True, stream_options={"include_usage": True})) as response:
                events = events_as_they_come(response)
                told = [await asyncio.wait_for(anext(events), PATIENCE_S)]
                counter.write_text(str(TAKEN))
                counted.set()
                told += [event async for event in events]
            [row] = await gateway.settled_entries(response.headers["x-request-id"])
            assert (row["energy_basis"], row["energy_boundary"]) == ("ENERGY_BASIS_MEASURED", "ENERGY_BOUNDARY_IT")
            assert {row[f"energy_{end}microjoules"] for end in ("", "low_", "high_")} == {TAKEN}
            assert row["estimated_energy_microjoules"] not in (0, TAKEN)
            assert json.loads(told[-2])["x-joulegate"]["energy_joules"] == TAKEN / 1e6
            # A call during which nothing was counted took nothing, and says that it was measured.
            whole = await http.post(CHAT, json=question())
            [row] = await gateway.settled_entries(whole.headers["x-request-id"])
            assert (row["energy_basis"], row["energy_microjoules"]) == ("ENERGY_BASIS_MEASURED", 0)
            # What a machine is stated to draw, for as long as the answer took; counters are not asked for it.
            lab.script(stream("a", "b"))
            stated = await http.post(CHAT, json=question(model="stated", stream=True))
            [row] = await gateway.settled_entries(stated.headers["x-request-id"])
            assert (row["energy_basis"], row["energy_boundary"]) == ("ENERGY_BASIS_DECLARED", "ENERGY_BOUNDARY_IT")
            assert 0 < row["energy_microjoules"] == row["energy_low_microjoules"] == row["energy_high_microjoules"]
            assert row["energy_microjoules"] <= 250 * stated.elapsed.total_seconds() * 1e6
