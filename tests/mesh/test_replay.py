"""`joulegate replay` on the log of a real router."""

import asyncio
import json
import os
import sys
from pathlib import Path

import httpx
import pytest

from tests.fakes.openai_upstream import OpenAIUpstream, completion
from tests.mesh.asking import CHAT, question
from tests.mesh.gateway import ONE_PROCESS, PATIENCE_S, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def replay(*arguments: str) -> tuple[int, str, str]:
    """Exit code, output and complaints of the command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "replay", *arguments),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, complaints = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    return process.returncode or 0, out.decode(), complaints.decode()


async def test_what_was_decided_is_decided_again_and_otherwise_by_another_policy(
    upstreams: tuple[OpenAIUpstream, OpenAIUpstream], lab: OpenAIUpstream, backup: OpenAIUpstream, tmp_path: Path
) -> None:
    tables = "".join(provider_table(name, each.base_url, ["small"]) for name, each in zip(("lab", "backup"), upstreams, strict=True))
    lab.always = backup.always = lambda _: completion("Hello")
    log, policy, decisions = tmp_path / "decisions.jsonl", tmp_path / "policy.json", tmp_path / "out.jsonl"
    async with (
        running(tmp_path, ONE_PROCESS, tables, ROUTING_LOG=str(log)) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30) as http,
    ):
        for model in ("small", "auto", "backup/small"):
            asked = question(model=model)
            (await http.post(CHAT, json=asked, headers={"cache-control": "no-store"})).raise_for_status()
    assert question()["messages"][0]["content"] not in log.read_text()
    code, out, _ = await replay(str(log))
    assert code == 0 and out.startswith("decisions  3, 0 of them otherwise, 0 refused\n")
    assert (await replay(str(log)))[1] == out
    policy.write_text(json.dumps({"prefer_providers": ["backup"]}))
    code, out, _ = await replay(str(log), "--policy", str(policy), "--decisions", str(decisions))
    assert code == 0 and out.startswith("decisions  3, ")
    told = [json.loads(line) for line in decisions.read_text().splitlines()]
    assert [one["replayed"]["target"] for one in told] == ["backup/small"] * 3
    assert told[0]["recorded"]["target"] == "lab/small" and not told[0]["is_same"]
    policy.write_text(json.dumps({"strategy": "magic"}))
    code, _, complaints = await replay(str(log), "--policy", str(policy))
    assert code == 2 and "strategy" in complaints
