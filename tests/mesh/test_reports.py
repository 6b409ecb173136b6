"""Reports through the real gateway: sums of what was really asked, over REST and over gRPC."""

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pyarrow as pa
import pytest
import pytest_asyncio
from pyarrow import parquet

from joulegate.ledger.v1 import admin_service_pb2 as pb
from joulegate.ledger.v1 import admin_service_pb2_grpc as pb_grpc
from joulegate.ledger.v1.report_pb2 import Grouping
from tests.fakes.openai_upstream import OpenAIUpstream, completion, error
from tests.mesh.asking import CHAT, question
from tests.mesh.gateway import ADMIN_KEY, ONE_PROCESS, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
REPORT = "/api/admin/report"
SUMMED = (
    *("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "cost_nano_usd", "carbon_micrograms"),
    *("energy_low_microjoules", "energy_microjoules", "energy_high_microjoules", "saved_cost_nano_usd", "saved_energy_microjoules"),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Where a request failed over, another was answered at once, and a third from the cache."""
    async with OpenAIUpstream() as lab, OpenAIUpstream() as spare:
        tables = provider_table("lab", lab.base_url, ["small"]) + provider_table("spare", spare.base_url, ["small"])
        async with running(tmp_path_factory.mktemp("reports"), ONE_PROCESS, tables + "[retry]\nattempts = 1\n") as gateway:
            lab.script(error(500, "No."))
            spare.script(completion("One."), completion("Two."))
            async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
                for text, model, rows in (("a", "small", 2), ("b", "spare/small", 1), ("b", "spare/small", 1)):
                    response = await http.post(CHAT, json=question(text, model=model))
                    assert response.status_code == 200, response.text
                    await gateway.settled_entries(response.headers["x-request-id"], rows)
            yield gateway


async def report(gateway: Gateway, *parameters: tuple[str, str]) -> Any:
    async with gateway.admin() as admin:
        response = await admin.get(REPORT, params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


async def test_report_is_the_sum_of_the_rows(gateway: Gateway) -> None:
    entries = await gateway.entries()
    (total,) = (await report(gateway))["rows"]
    assert (total["request_count"], total["attempt_count"], total["cache_hit_count"]) == ("3", "3", "1")
    for name in SUMMED:
        assert int(total[name]) == sum(row[name] for row in entries), name
    assert int(total["energy_low_microjoules"]) > 0 and "provider" not in total


async def test_report_is_told_apart_by_day_and_provider_and_paged(gateway: Gateway) -> None:
    entries = await gateway.entries()
    now = datetime.now(UTC)
    asked = [
        *[("group_by", name) for name in ("GROUPING_PROVIDER", "GROUPING_OUTCOME")],
        ("interval", "INTERVAL_DAY"),
        ("start_time", (now - timedelta(days=2)).isoformat().replace("+00:00", "Z")),
        ("end_time", (now + timedelta(hours=1)).isoformat().replace("+00:00", "Z")),
        ("page_size", "2"),
    ]
    rows, token = [], ""
    while True:
        page = await report(gateway, *asked, ("page_token", token))
        assert len(page["rows"]) <= 2
        rows += page["rows"]
        token = page["next_page_token"]
        if not token:
            break
    groups = {(row["create_time"][:10] + "T00:00:00Z", row["provider"], row["outcome"]) for row in entries}
    given = [(row["interval_start_time"], row["provider"], row["outcome"]) for row in rows]
    assert len(given) == len(groups) > 2 and set(given) == groups
    assert [group[:2] for group in given] == sorted(group[:2] for group in given)
    assert sum(int(row["output_tokens"]) for row in rows) == sum(row["output_tokens"] for row in entries)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("start_time", "yesterday"),
        ("start_time", "2250-01-01T00:00:00Z"),
        ("end_time", "1950-01-01T00:00:00Z"),
        ("group_by", "GROUPING_COLOUR"),
        ("group_by", "0"),
        ("interval", "INTERVAL_FORTNIGHT"),
        ("page_size", "-1"),
        ("page_token", "made-up"),
    ],
)
async def test_bad_question_is_refused_by_name(gateway: Gateway, name: str, value: str) -> None:
    async with gateway.admin() as admin:
        response = await admin.get(REPORT, params={name: value})
    failed = response.json()["error"]
    assert (response.status_code, failed["type"]) == (400, "invalid_request_error")
    # Envoy, which reads the values, names a field in its words only.
    assert name in failed["message"] and failed["param"] in (None, name)


async def test_command_of_the_handbook_asks_for_a_report(gateway: Gateway) -> None:
    (command,) = re.findall(r"^curl -sG .*\\\n.*$", OPERATIONS.read_text(), re.MULTILINE)
    command = command.replace("http://127.0.0.1:8000", gateway.url).replace("ADMIN_API_KEY", ADMIN_KEY)
    process = await asyncio.create_subprocess_exec("sh", "-c", command, stdout=asyncio.subprocess.PIPE)
    answer, _ = await process.communicate()
    rows = json.loads(answer)["rows"]
    assert {(row["team"], row["model"]) for row in rows} == {("", "small")}
    assert sum(int(row["attempt_count"]) for row in rows) == 3


async def test_rows_are_compared_with_what_they_come_to_now(gateway: Gateway) -> None:
    async with gateway.admin() as admin:
        response = await admin.get(f"{REPORT}/rederived")
    assert response.status_code == 200, response.text
    told = response.json()
    assert told["factors_version"] and all(row["booked"] == row["now"] for row in told["rows"])
    assert sum(int(row["row_count"]) for row in told["rows"]) == 4


async def test_report_is_for_operators_and_only_read(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
        assert (await http.get(REPORT)).status_code == 401
        refused = await http.post(REPORT)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")


async def test_grpc_clients_get_the_same(gateway: Gateway) -> None:
    metadata = (("authorization", f"Bearer {ADMIN_KEY}"),)
    async with grpc.aio.insecure_channel(gateway.url.removeprefix("http://")) as channel:
        request = pb.GetReportRequest(group_by=[Grouping.GROUPING_ZONE])
        response = await pb_grpc.AdminServiceStub(channel).GetReport(request, metadata=metadata)
    rows = (await report(gateway, ("group_by", "GROUPING_ZONE")))["rows"]
    assert [(row.zone, str(row.energy_microjoules)) for row in response.rows] == [(row["zone"], row["energy_microjoules"]) for row in rows]


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
async def test_books_are_taken_as_a_file(gateway: Gateway, file_format: str) -> None:
    entries = await gateway.entries()
    async with gateway.admin() as admin:
        response = await admin.get("/api/admin/export", params={"format": file_format})
    assert (response.status_code, response.headers["content-disposition"]) == (200, f'attachment; filename="entries.{file_format}"')
    if file_format == "parquet":
        costs = parquet.read_table(pa.BufferReader(response.content)).column("cost_nano_usd").to_pylist()
    elif file_format == "csv":
        assert response.headers["content-type"] == "text/csv; charset=utf-8"
        costs = [int(line["cost_nano_usd"]) for line in csv.DictReader(io.StringIO(response.text, newline=""))]
    else:
        costs = [json.loads(line)["cost_nano_usd"] for line in response.text.splitlines()]
    assert sorted(costs) == sorted(row["cost_nano_usd"] for row in entries)


async def test_export_needs_the_admin_key_and_a_format_that_there_is(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as http, gateway.admin() as admin:
        assert (await http.get("/api/admin/export")).status_code == 401
        refused = await admin.get("/api/admin/export", params={"format": "xls"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "format")
