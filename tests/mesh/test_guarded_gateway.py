"""A gateway with keys on both sides and providers that cannot be reached: nobody learns a key, and nobody waits for ever."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import openai
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import Fault, OpenAIUpstream, answer, completion, error, hang, stream
from tests.mesh.asking import CHAT, UNCACHED, assert_openai_error, http_client, question
from tests.mesh.gateway import ADMIN_KEY, ONE_PROCESS, PROCESSES, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENT_KEY = "sk-canary-of-the-client-0123456789"
PROVIDER_KEY = "sk-canary-of-the-provider-9876543210"
SECRETS = (CLIENT_KEY, PROVIDER_KEY, ADMIN_KEY)
PROMPT, REPLY = "canary of the prompt", "canary of the answer"
TIMEOUTS = "timeouts = { connect = 0.5, first_byte = 1, idle = 1, total = 1 }\n"
GUARDED = {"authorization": f"Bearer {CLIENT_KEY}"}


@contextmanager
def deaf_address() -> Iterator[str]:
    """An address whose queue of connections is full: the kernel answers no further one, so that connecting hangs."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"


def closed_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/v1"


def table(name: str, base_url: str, model: str, extra: str = "") -> str:
    lines = provider_table(name, base_url, [model]).splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("timeouts")) + TIMEOUTS + extra


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[OpenAIUpstream]:
    async with OpenAIUpstream() as upstream:
        yield upstream


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[PROCESSES, ONE_PROCESS])
async def guarded(
    request: pytest.FixtureRequest, provider: OpenAIUpstream, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp(f"guarded-{request.param}")
    with deaf_address() as deaf:
        tables = table("lab", provider.base_url, "small", 'api_key_env = "LAB_API_KEY"\n')
        tables += table("deaf", deaf, "deaf") + table("gone", closed_address(), "gone") + "[retry]\nattempts = 1\n"
        keys = {"GATEWAY_API_KEY": CLIENT_KEY, "LAB_API_KEY": PROVIDER_KEY}
        async with running(folder, request.param, tables, **keys) as gateway:
            yield gateway


@pytest.mark.parametrize("streamed", [False, True])
async def test_provider_that_does_not_take_the_connection_is_a_timeout(guarded: Gateway, streamed: bool) -> None:
    async with asyncio.timeout(8), http_client(guarded, **GUARDED) as http:
        response = await http.post(CHAT, json=question(model="deaf", stream=streamed))
    message = assert_openai_error(response, 504, "server_error", "provider_timeout")
    assert "could not be reached in time" in message and "127.0.0.1" not in message
    (row,) = await guarded.settled_entries(response.headers["x-request-id"])
    assert row["outcome"] == "OUTCOME_TIMED_OUT"


async def test_provider_that_is_not_there_is_told_without_its_address(guarded: Gateway) -> None:
    async with http_client(guarded, **GUARDED) as http:
        response = await http.post(CHAT, json=question(model="gone"))
    message = assert_openai_error(response, 502, "all_providers_failed", "all_providers_failed")
    assert "cannot be reached" in message and "127.0.0.1" not in message
    (row,) = await guarded.settled_entries(response.headers["x-request-id"])
    assert row["outcome"] == "OUTCOME_FAILED"


async def test_whole_answer_that_does_not_come_is_a_timeout(guarded: Gateway, provider: OpenAIUpstream) -> None:
    provider.forget()
    provider.script(hang())
    async with asyncio.timeout(8), http_client(guarded, **GUARDED) as http:
        response = await http.post(CHAT, json=question())
    assert_openai_error(response, 504, "server_error", "provider_timeout")
    await asyncio.wait_for(provider.calls[0].disconnected.wait(), 1)
    (row,) = await guarded.settled_entries(response.headers["x-request-id"])
    assert row["outcome"] == "OUTCOME_TIMED_OUT"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": CLIENT_KEY}, {"x-api-key": "wrong"}], ids=str)
async def test_stranger_is_refused_before_anything_is_read(guarded: Gateway, provider: OpenAIUpstream, headers: dict[str, str]) -> None:
    provider.forget()
    async with http_client(guarded, **headers) as http:
        assert_openai_error(await http.post(CHAT, content=b"no JSON"), 401, "authentication_error", "invalid_api_key")
    assert not provider.calls


async def test_sdk_with_a_wrong_key_raises_authentication_error(guarded: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=guarded.base_url, api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as raised:
            await client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hello"}])
    assert raised.value.code == "invalid_api_key"


async def test_no_key_and_no_prompt_appears_in_any_output(guarded: Gateway, provider: OpenAIUpstream) -> None:
    """Everything that a request can become, with a provider that shows what it was sent; then all that was written anywhere."""
    provider.forget()
    echo = f"wrong key {PROVIDER_KEY} in Bearer {PROVIDER_KEY}"
    provider.script(
        completion(REPLY),
        stream(REPLY),
        error(401, echo, code=PROVIDER_KEY),
        error(400, echo, param=PROVIDER_KEY),
        error(500, echo),
        answer(f"<title>{echo}</title>", status=502, content_type="text/html"),
        stream(REPLY, b'data: {"error": {"message": "' + echo.encode() + b'"}}\n\n'),
        stream(REPLY, Fault.RESET),
    )
    outputs: list[str] = []
    async with httpx.AsyncClient(base_url=guarded.url, headers=UNCACHED | GUARDED, timeout=30) as http:
        for streamed in (False, True, False, False, False, False, True, True):
            response = await http.post(CHAT, json=question(PROMPT, stream=streamed, user="canary of the user"))
            outputs.append(f"{response.headers.raw}\n{response.text}")
        for path in ("/", "/health", "/v1/models"):
            outputs.append((await http.get(path)).text)
        entries = await http.get("/api/admin/entries", headers={"authorization": f"Bearer {ADMIN_KEY}"})
        outputs.append(entries.text)
        metrics = re.findall(r"http://\S+/metrics", guarded.text)
        assert metrics
        outputs += [(await http.get(url)).text for url in metrics]
    assert [httpx.Headers(call.headers)["authorization"] for call in provider.calls] == [f"Bearer {PROVIDER_KEY}"] * 8
    shown = "\n".join(outputs)
    assert not [secret for secret in SECRETS if secret in shown]
    # Lines gather for a moment before they are written: both the edge's and the router's are there then.
    await guarded.says(response.headers["x-request-id"], times=2)
    logged = guarded.text
    assert not [secret for secret in (*SECRETS, PROMPT, REPLY, "canary") if secret in logged]
    kept = b"".join(path.read_bytes() for path in sorted(folder_of(guarded).rglob("*")) if path.is_file())
    assert response.headers["x-request-id"].encode() in kept
    assert not [secret for secret in SECRETS if secret.encode() in kept]


def folder_of(gateway: Gateway) -> Path:
    """The data folder, as `up` names it."""
    line = next(line for line in gateway.text.splitlines() if line.startswith("  data "))
    return Path(line.split()[1])
