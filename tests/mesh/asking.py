"""Questions over raw HTTP, and their answers read to the byte."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.fakes.openai_upstream import Call
from tests.mesh.gateway import Gateway

CHAT = "/v1/chat/completions"
# Tests script the provider anew for each question: no answer of an earlier one may stand in.
UNCACHED = {"cache-control": "no-store"}
# The promise is 100 ms on a machine with time for us; this bound only says that nothing waits for a timeout.
LEAVING_S = 1.0


def question(text: str = "Hello", **members: Any) -> dict[str, Any]:
    """A request body for model `small`; `members` are added to it or replace what is there."""
    return {"model": "small", "messages": [{"role": "user", "content": text}]} | members


def http_client(gateway: Gateway, **headers: str) -> httpx.AsyncClient:
    """A client that never gets a cached answer."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=16)
    return httpx.AsyncClient(base_url=gateway.url, headers=UNCACHED | headers, timeout=30, limits=limits)


def events_of(body: bytes) -> list[bytes]:
    """The data of each event of a stream that is framed as OpenAI frames it: one `data: ` line, then a blank one, and nothing else."""
    *events, rest = body.split(b"\n\n")
    assert rest == b""
    for event in events:
        assert event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event, event
    return [event.removeprefix(b"data: ") for event in events]


def chunks_of(body: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream that ends as it should: with `[DONE]`, said once."""
    *chunks, done = events_of(body)
    assert done == b"[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def text_of(chunks: list[dict[str, Any]]) -> str:
    """What the chunks say in their first choice."""
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"] if choice["index"] == 0)


async def events_as_they_come(response: httpx.Response) -> AsyncIterator[bytes]:
    """The data of each event as soon as its bytes are here."""
    held = b""
    async for data in response.aiter_bytes():
        *events, held = (held + data).split(b"\n\n")
        for event in events:
            yield event.removeprefix(b"data: ")
    assert held == b""


async def sees_leaving(call: Call, left_at: float) -> None:
    """That the provider sees its client gone soon after the monotonic time `left_at`; prints how soon."""
    await asyncio.wait_for(call.disconnected.wait(), LEAVING_S)
    print(f"the provider saw the client leave after {(time.monotonic() - left_at) * 1000:.1f} ms")


def assert_openai_error(response: httpx.Response, status: int, type: str, code: str | None, param: str | None = None) -> str:
    """That this is an error as OpenAI's clients know it. Gives its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    leaked = [name for name in response.headers if name.startswith(("grpc-", "x-envoy-", "x-openai-error", "x-http-status"))]
    assert not leaked
    document = response.json()
    assert document.keys() == {"error"}
    error = document["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == (type, code, param)
    assert isinstance(error["message"], str) and error["message"]
    return error["message"]
