"""`joulegate warm` against the real gateway: what it sends is found, and what it cannot send it says."""

import asyncio
import json
import os
import sys
from pathlib import Path

import httpx
import pytest

from tests.fakes.openai_upstream import OpenAIUpstream
from tests.mesh.asking import CHAT, question
from tests.mesh.gateway import ADMIN_KEY, ONE_PROCESS, PATIENCE_S, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="session")

KNOWN = "What is the boiling point of water?"


async def warm(file: Path, *options: str, admin_key: str = ADMIN_KEY) -> tuple[int, str, str]:
    """Exit code, output and complaints of the command."""
    command = (sys.executable, "-m", "services.cli", "warm", str(file), *options)
    environment = {**os.environ, "ADMIN_API_KEY": admin_key, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, cwd=file.parent, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, complaints = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    return process.returncode or 0, out.decode(), complaints.decode()


async def test_file_of_answers_is_served_before_anybody_asked(
    upstreams: tuple[OpenAIUpstream, OpenAIUpstream], lab: OpenAIUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "answers.jsonl"
    rows = [{"question": KNOWN, "answer": "100 degrees"}, {"question": "no answer"}, {"question": "Why?", "answer": "Because.", "ttl": 60}]
    file.write_text("\n".join(map(json.dumps, rows)))
    settings = {"CACHE_LOOKUP_TIMEOUT_SECONDS": "10"}
    async with (
        running(tmp_path, ONE_PROCESS, provider_table("lab", upstreams[0].base_url, ["small"]), **settings) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30) as http,
    ):
        code, out, complaints = await warm(file, "--url", gateway.url, "--model", "small")
        assert (code, out) == (1, "2 answers stored, 1 lines refused\n")
        assert complaints.startswith(f"{file}:2: ") and "answer" in complaints
        exact = await http.post(CHAT, json=question(KNOWN, stream=True))
        assert exact.headers["x-joulegate-cache"] == "hit-exact" and "100 degrees" in exact.text
        reworded = await http.post(CHAT, json=question(KNOWN.replace("the ", "the  ")))
        assert reworded.headers["x-joulegate-cache"] == "hit-semantic"
        refused = await http.post(CHAT, json=question(KNOWN), headers={"authorization": "Bearer else", "cache-control": "only-if-cached"})
        assert refused.status_code == 504
        assert lab.calls == []
        code, _, complaints = await warm(file, "--url", gateway.url, admin_key="wrong")
        assert code == 2 and "401" in complaints
    code, _, complaints = await warm(file, "--url", gateway.url)
    assert code == 2 and "cannot be reached" in complaints
    assert (await warm(tmp_path / "none.jsonl"))[0] == 2
