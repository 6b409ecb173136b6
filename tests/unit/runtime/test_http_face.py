"""The plain HTTP face: which methods it serves, and what it makes of each end that a handler can come to."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.api.httpbody_pb2 import HttpBody

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.openai.v1 import openai_service_pb2 as pb
from joulegate.openai.v1 import openai_service_pb2_grpc as pb_grpc
from services.runtime import http_face, interceptors
from services.runtime.errors import GatewayError
from services.runtime.http_face import HttpFace, routes
from services.runtime.interceptors import Context
from services.runtime.registry import Registry
from services.runtime.tracing import Tracing

CHAT = "/v1/chat/completions"
Behaviour = Callable[[pb.CreateChatCompletionRequest, Context], AsyncIterator[HttpBody]]


class Service(pb_grpc.OpenAIServiceServicer):
    """Does what the test says."""

    behaviour: Behaviour

    async def CreateChatCompletion(self, request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        async for body in self.behaviour(request, context):
            yield body

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> HttpBody:
        return HttpBody()

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> HttpBody:
        return HttpBody()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def face(service: Service) -> HttpFace:
    registry = Registry(interceptors.guard)
    pb_grpc.add_OpenAIServiceServicer_to_server(service, registry)
    return HttpFace(routes(registry), Tracing())


@pytest.fixture
async def http(face: HttpFace, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    socket = str(tmp_path / "s")
    serving = http_face.serve(face, f"unix:{socket}", 1.0)
    async with serving, aiohttp.ClientSession("http://router", connector=aiohttp.UnixConnector(socket)) as session:
        yield session


def test_only_posts_of_bytes_are_served(service: Service) -> None:
    registry = Registry(interceptors.guard)
    pb_grpc.add_OpenAIServiceServicer_to_server(service, registry)
    assert list(routes(registry)) == [CHAT]
    assert not HttpFace(routes(Registry(interceptors.guard)), Tracing()).has_routes


async def test_a_whole_answer_has_its_headers_and_its_length(service: Service, http: aiohttp.ClientSession) -> None:
    seen: list[Any] = []

    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        seen.append((request.body.data, dict(context.invocation_metadata() or ())["authorization"], context.time_remaining()))
        await context.send_initial_metadata((("x-joulegate-cache", "miss"),))
        yield HttpBody(content_type="application/json", data=b'{"a":1e0}')

    service.behaviour = answer
    async with http.post(CHAT, data=b"{}", headers={"Authorization": "Bearer k"}) as response:
        assert (response.status, await response.read()) == (200, b'{"a":1e0}')
        assert response.headers["x-joulegate-cache"] == "miss"
        assert (response.headers["content-type"], response.headers["content-length"]) == ("application/json", "9")
    assert seen == [(b"{}", "Bearer k", None)]


@pytest.mark.parametrize(("sent", "seen"), [(b"\xc3\xa4", "ä"), (b"\xe4", "ä"), (b"\xff\xfe", "ÿþ")])
async def test_a_header_is_text_that_can_be_handed_on(service: Service, tmp_path: Path, face: HttpFace, sent: bytes, seen: str) -> None:
    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="text/plain", data=str(dict(context.invocation_metadata() or ())["tracestate"]).encode())

    service.behaviour = answer
    socket = str(tmp_path / "s")
    async with http_face.serve(face, f"unix:{socket}", 1.0):
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(
            b"POST %s HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 0\r\ntracestate: %s\r\n\r\n" % (CHAT.encode(), sent)
        )
        assert (await reader.read()).rpartition(b"\r\n")[2] == seen.encode()
        writer.close()


async def test_a_stream_leaves_frame_by_frame(service: Service, http: aiohttp.ClientSession) -> None:
    read = asyncio.Event()

    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="text/event-stream; charset=utf-8", data=b"data: 0\n\n")
        await read.wait()
        yield HttpBody(data=b"data: 1\n\n")

    service.behaviour = answer
    async with http.post(CHAT, data=b"{}") as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert await response.content.readany() == b"data: 0\n\n"
        read.set()
        assert await response.content.read() == b"data: 1\n\n"


async def test_an_error_is_openais_and_says_when_to_come_back(service: Service, http: aiohttp.ClientSession) -> None:
    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        error = GatewayError(ErrorReason.ERROR_REASON_RATE_LIMITED, "slow down", retry_after_s=6.2)
        error.headers = [("x-ratelimit-remaining-requests", "0")]
        raise error
        yield HttpBody()

    service.behaviour = answer
    async with http.post(CHAT, data=b"{}") as response:
        assert (response.status, response.headers["retry-after"], response.headers["retry-after-ms"]) == (429, "7", "6200")
        assert response.headers["x-ratelimit-remaining-requests"] == "0"
        assert not [name for name in response.headers if name.lower().startswith(("x-openai", "x-http", "grpc"))]
        assert (await response.json())["error"]["message"] == "slow down"


async def test_what_nobody_foresaw_is_a_500_without_details(service: Service, http: aiohttp.ClientSession) -> None:
    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        raise ZeroDivisionError("a secret")
        yield HttpBody()

    service.behaviour = answer
    async with http.post(CHAT, data=b"{}") as response:
        assert response.status == 500
        assert (await response.json())["error"]["code"] == "internal_error"
        assert "secret" not in await response.text()


async def test_a_failure_inside_a_stream_breaks_it_off(service: Service, http: aiohttp.ClientSession) -> None:
    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="text/event-stream", data=b"data: 0\n\n")
        raise ZeroDivisionError

    service.behaviour = answer
    async with http.post(CHAT, data=b"{}") as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_client_that_leaves_cancels_the_handler(service: Service, http: aiohttp.ClientSession, has_begun: bool) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        if has_begun:
            yield HttpBody(content_type="text/event-stream", data=b"data: 0\n\n")
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async def ask() -> None:
        async with http.post(CHAT, data=b"{}") as response:
            await response.read()

    service.behaviour = answer
    asking = asyncio.create_task(ask())
    await arrived.wait()
    asking.cancel()
    await asyncio.wait_for(left.wait(), 30)


async def test_a_body_beyond_the_bound_is_refused(http: aiohttp.ClientSession) -> None:
    async with http.post(CHAT, data=io.BytesIO(b"x" * (http_face.MAX_BODY_BYTES + 1))) as response:
        assert response.status == 413
        assert json.loads(await response.read())["error"]["code"] == "request_too_large"


async def test_a_packed_body_is_not_unpacked(service: Service, http: aiohttp.ClientSession) -> None:
    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="application/json", data=request.body.data)

    service.behaviour = answer
    packed = b"\x1f\x8b not even gzip"
    async with http.post(CHAT, data=packed, headers={"content-encoding": "gzip"}) as response:
        assert await response.read() == packed


@pytest.mark.parametrize(("method", "path"), [("GET", CHAT), ("POST", "/v1/models"), ("GET", "/")])
async def test_there_is_nothing_else(http: aiohttp.ClientSession, method: str, path: str) -> None:
    async with http.request(method, path) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "not_found")


async def test_health_says_when_the_process_is_leaving(face: HttpFace, http: aiohttp.ClientSession) -> None:
    async def status() -> int:
        async with http.get(http_face.HEALTH_PATH) as response:
            return response.status

    assert await status() == 200
    face.is_draining = True
    assert await status() == 503


async def test_leaving_waits_for_a_running_answer(service: Service, face: HttpFace, tmp_path: Path) -> None:
    arrived, finish = asyncio.Event(), asyncio.Event()

    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        arrived.set()
        await finish.wait()
        yield HttpBody(content_type="application/json", data=b"{}")

    async def ask(get: Callable[..., Any]) -> bytes:
        async with get(CHAT, data=b"{}") as response:
            data: Awaitable[bytes] = response.read()
            return await data

    service.behaviour = answer
    socket = str(tmp_path / "s")
    serving = http_face.serve(face, f"unix:{socket}", 10.0)
    await serving.__aenter__()
    async with aiohttp.ClientSession("http://router", connector=aiohttp.UnixConnector(socket)) as session:
        asking = asyncio.create_task(ask(session.post))
        await arrived.wait()
        leaving = asyncio.create_task(serving.__aexit__(None, None, None))
        done, _ = await asyncio.wait([leaving], timeout=0.1)
        assert not done
        finish.set()
        assert await asking == b"{}"
    await leaving


@pytest.mark.parametrize("drain_s", [0.0, 1.0])
async def test_what_outlasts_the_drain_is_cut_off_when_it_ends(
    service: Service, face: HttpFace, tmp_path: Path, caplog: pytest.LogCaptureFixture, drain_s: float
) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        arrived.set()
        try:
            await asyncio.Event().wait()
            yield HttpBody()
        finally:
            left.set()

    service.behaviour = answer
    socket = str(tmp_path / "s")
    serving = http_face.serve(face, f"unix:{socket}", drain_s)
    await serving.__aenter__()
    _, writer = await asyncio.open_unix_connection(socket)
    writer.write(b"POST %s HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n" % CHAT.encode())
    await arrived.wait()
    # Whoever started this process kills it a few seconds after the drain.
    await asyncio.wait_for(serving.__aexit__(None, None, None), drain_s + 0.9)
    assert left.is_set()
    assert not [record for record in caplog.records if record.name.startswith("aiohttp")]
    writer.close()
