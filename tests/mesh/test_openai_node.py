"""The official SDK for Node gets from the gateway what it gets from OpenAI."""

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.openai_upstream import Fault, OpenAIUpstream, Reply, chunk, completion, error, sse, stream
from tests.mesh.asking import sees_leaving
from tests.mesh.conftest import listed_models
from tests.mesh.gateway import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="session")

FOLDER = Path(__file__).parents[1] / "npm"
PATIENCE_S = 30


@pytest.fixture(scope="module")
def node() -> str:
    """The program. A machine without it skips these tests and says so; CI must have it."""
    program = shutil.which("node")
    missing = "node is not installed" if program is None else "run `npm ci` in tests/npm" if not (FOLDER / "node_modules").is_dir() else ""
    if program is None or missing:
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(f"the SDK for Node is NOT tested: {missing}")
    return program


@asynccontextmanager
async def scenario(node: str, name: str, gateway: Gateway) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(node, "chat.mjs", name, gateway.base_url),
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def result(node: str, name: str, gateway: Gateway) -> Any:
    """What the client got."""
    async with asyncio.timeout(PATIENCE_S), scenario(node, name, gateway) as process:
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def test_whole_answer(node: str, gateway: Gateway, lab: OpenAIUpstream) -> None:
    lab.script(completion("Hello!"))
    got = await result(node, "chat", gateway)
    assert got["data"]["choices"][0]["message"]["content"] == "Hello!"
    assert got["data"]["x-gateway"]["provider"] == got["provider"] == "lab"
    assert float(got["joules"]) > 0
    (row,) = await gateway.settled_entries(got["requestId"])
    assert row["outcome"] == "OUTCOME_FINISHED"
    assert (lab.calls[0].json["top_k"], lab.calls[0].json["metadata"]) == (40, {"team": "x"})


async def test_stream(node: str, gateway: Gateway, lab: OpenAIUpstream) -> None:
    lab.script(stream("Hel", "lo"))
    got = await result(node, "stream", gateway)
    assert [piece["choices"][0]["delta"].get("content") for piece in got] == ["", "Hel", "lo", None]
    assert [piece["choices"][0]["finish_reason"] for piece in got] == [None, None, None, "stop"]
    assert not [piece for piece in got if "usage" in piece]


async def test_stream_with_usage(node: str, gateway: Gateway, lab: OpenAIUpstream) -> None:
    lab.script(stream("Hello"))
    *pieces, last = await result(node, "usage", gateway)
    assert not [piece for piece in pieces if piece.get("usage")]
    assert last["choices"] == [] and last["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert last["x-joulegate"]["energy_joules"] > 0


async def test_stream_of_parallel_tool_calls(node: str, gateway: Gateway, lab: OpenAIUpstream) -> None:
    def piece(index: int, arguments: str, **opening: str) -> bytes:
        function = {"arguments": arguments} | ({"name": "weather"} if opening else {})
        return chunk({"tool_calls": [{"index": index, "function": function} | opening]})

    calls = [piece(0, "", id="a", type="function"), piece(0, '{"place":'), piece(0, '"Ulm"}'), piece(1, "{}", id="b", type="function")]
    lab.script(sse(chunk({"role": "assistant", "content": None}), *calls, chunk({}, finish="tool_calls"), b"data: [DONE]\n\n"))
    got = await result(node, "tools", gateway)
    assert got["finish_reason"] == "tool_calls"
    seen = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in got["message"]["tool_calls"]]
    assert seen == [("a", "weather", '{"place":"Ulm"}'), ("b", "weather", "{}")]


async def test_models(node: str, gateway: Gateway) -> None:
    got = await result(node, "models", gateway)
    assert got["names"] == listed_models() and got["one"] == "small"
    assert (got["unknown"]["class"], got["unknown"]["code"], got["unknown"]["param"]) == ("NotFoundError", "model_not_found", "model")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (
            error(400, "too hot", type="invalid_request_error", code="zz", param="q"),
            ("BadRequestError", 400, "zz", "invalid_request_error", "q"),
        ),
        (error(422, "no", code="c"), ("UnprocessableEntityError", 422, "c", "fake_error", None)),
        (error(429, "slow"), ("RateLimitError", 429, "provider_rate_limit_exceeded", "rate_limit_error", None)),
        (error(500, "boom"), ("InternalServerError", 502, "all_providers_failed", "all_providers_failed", None)),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Reply) else value[0],
)
async def test_refusal_of_a_provider(node: str, gateway: Gateway, lab: OpenAIUpstream, reply: Reply, expected: tuple[Any, ...]) -> None:
    lab.script(reply)
    got = await result(node, "error", gateway)
    assert (got["class"], got["status"], got["code"], got["type"], got["param"]) == expected
    assert got["hasRequestId"]


async def test_bad_parameter_is_named(node: str, gateway: Gateway) -> None:
    got = await result(node, "invalid", gateway)
    assert (got["class"], got["status"], got["param"], got["code"]) == ("BadRequestError", 400, "temperature", None)


async def test_cut_stream_is_an_error(node: str, gateway: Gateway, lab: OpenAIUpstream) -> None:
    lab.script(stream("Hel", Fault.RESET))
    got = await result(node, "cut", gateway)
    assert (got["class"], got["code"], got["type"]) == ("APIError", "stream_cut", "server_error")


async def test_abort_of_a_stream_stops_the_provider(node: str, gateway: Gateway, lab: OpenAIUpstream) -> None:
    lab.script(stream("Hello", Fault.HANG))
    async with asyncio.timeout(PATIENCE_S), scenario(node, "abort", gateway) as process:
        assert process.stdout is not None and process.stdin is not None
        assert json.loads(await process.stdout.readline()) == "aborted"
        aborted_at = time.monotonic()
        await sees_leaving(lab.calls[0], aborted_at)
        assert process.returncode is None
        process.stdin.write(b"end\n")
        assert json.loads(await process.stdout.readline()) == "end"
