"""The real Envoy, configured by envoy/, in front of scripted services."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from google.api.httpbody_pb2 import HttpBody

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.cache.v1 import cache_service_pb2_grpc as cache_pb_grpc
from joulegate.chat.v1 import chat_service_pb2 as chat_pb
from joulegate.chat.v1 import chat_service_pb2_grpc as chat_pb_grpc
from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb
from joulegate.dispatch.v1 import dispatch_service_pb2_grpc as dispatch_pb_grpc
from joulegate.ledger.v1 import admin_service_pb2 as admin_pb
from joulegate.ledger.v1 import admin_service_pb2_grpc as admin_pb_grpc
from joulegate.ledger.v1 import key_service_pb2 as key_pb
from joulegate.ledger.v1 import key_service_pb2_grpc as key_pb_grpc
from joulegate.ledger.v1 import ledger_service_pb2 as ledger_pb
from joulegate.ledger.v1 import ledger_service_pb2_grpc as ledger_pb_grpc
from joulegate.openai.v1 import openai_service_pb2 as pb
from joulegate.ops.v1 import providers_service_pb2 as providers_pb
from joulegate.ops.v1 import providers_service_pb2_grpc as providers_pb_grpc
from joulegate.session.v1 import session_service_pb2_grpc as session_pb_grpc
from services.up import edge
from tests.fakes.edge_services import SERVICES, ChatAnswer, Context
from tests.mesh.edge import ENVOY, RunningEdge, eventually, has_status, running_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://app.example"
CHAT = "/v1/chat/completions"
ERROR_BODY = '{"error": {"message": "caf\\u00e9 \\"x\\"", "type": "t", "param": null, "code": "c"}}'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[RunningEdge]:
    async with running_edge((ORIGIN,)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared: RunningEdge) -> AsyncIterator[RunningEdge]:
    yield shared
    assert shared.mesh.unconsumed() == 0


def whole(data: bytes, *metadata: tuple[str, str]) -> ChatAnswer:
    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        await context.send_initial_metadata(metadata)
        yield HttpBody(content_type="application/json", data=data)

    return answer


def failure(code: grpc.StatusCode, *trailers: tuple[str, str], headers_first: bool = False) -> ChatAnswer:
    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        if headers_first:
            await context.send_initial_metadata((("x-joulegate-cache", "miss"),))
        context.set_trailing_metadata(trailers)
        await context.abort(code, "gRPC's own text")
        yield HttpBody()

    return answer


def assert_openai_error(response: httpx.Response, status: int, kind: str, code: str | None) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert (error["type"], error["param"], error["code"]) == (kind, None, code)


async def test_body_arrives_as_it_was_sent_and_answer_as_it_was_written(gateway: RunningEdge) -> None:
    seen: list[Any] = []

    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        seen.append((request.body.content_type, request.body.data, dict(context.invocation_metadata() or ())))
        yield HttpBody(content_type="application/json", data=b'{"b":1.0,  "a":null}')

    gateway.answer(answer)
    response = await gateway.http.post(
        f"{CHAT}?unknown=1", content=b'{"x" : 1e3}', headers={"content-type": "application/json", "authorization": "Bearer k"}
    )
    assert (response.status_code, response.content) == (200, b'{"b":1.0,  "a":null}')
    content_type, data, metadata = seen[0]
    assert (content_type, data, metadata["authorization"]) == ("application/json", b'{"x" : 1e3}', "Bearer k")
    assert response.headers["server"] == "joulegate"
    assert not [name for name in response.headers if name.startswith(("grpc-", "x-envoy-"))]


async def test_sse_frames_arrive_one_by_one(gateway: RunningEdge) -> None:
    received = [asyncio.Event() for _ in range(3)]

    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        for number, event in enumerate(received):
            yield HttpBody(content_type="text/event-stream" if number == 0 else "", data=b"data: %d\n\n" % number)
            await event.wait()  # the next frame leaves only after the client has read this one

    gateway.answer(answer)
    async with asyncio.timeout(30), gateway.http.stream("POST", CHAT, json={}) as response:
        assert response.headers["content-type"] == "text/event-stream"
        number = 0
        async for chunk in response.aiter_bytes():
            assert chunk == b"data: %d\n\n" % number
            received[number].set()
            number += 1
    assert number == 3


async def test_client_that_leaves_cancels_the_call(gateway: RunningEdge) -> None:
    cancelled = asyncio.Event()

    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="text/event-stream", data=b"data: 0\n\n")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    gateway.answer(answer)
    async with gateway.http.stream("POST", CHAT, json={}) as response:
        await anext(response.aiter_bytes())
    async with asyncio.timeout(30):
        await cancelled.wait()


@pytest.mark.parametrize("headers_first", [False, True], ids=["trailers-only", "headers-then-trailers"])
async def test_error_trailers_become_the_answer(gateway: RunningEdge, headers_first: bool) -> None:
    trailers = (("x-openai-error", ERROR_BODY), ("x-http-status", "429"), ("retry-after", "7"))
    gateway.answer(failure(grpc.StatusCode.RESOURCE_EXHAUSTED, *trailers, headers_first=headers_first))
    response = await gateway.http.post(CHAT, json={})
    assert (response.status_code, response.text) == (429, ERROR_BODY)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(ERROR_BODY))
    assert response.headers["retry-after"] == "7"
    assert not [name for name in response.headers if name.startswith("grpc-") or name in ("x-openai-error", "x-http-status")]


@pytest.mark.parametrize("status", [402, 413, 502])
async def test_service_chooses_the_http_status(gateway: RunningEdge, status: int) -> None:
    gateway.answer(failure(grpc.StatusCode.INTERNAL, ("x-openai-error", ERROR_BODY), ("x-http-status", str(status))))
    response = await gateway.http.post(CHAT, json={})
    assert (response.status_code, response.text) == (status, ERROR_BODY)
    transcoded = await gateway.http.get(f"/v1/models/http-{status}")
    assert (transcoded.status_code, transcoded.json()) == (status, {"error": {"code": "chosen"}})


@pytest.mark.parametrize(
    ("reason", "status", "kind", "code"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, "server_error", "service_unavailable"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "server_error", "deadline_exceeded"),
        (grpc.StatusCode.INVALID_ARGUMENT, 400, "invalid_request_error", None),
    ],
)
async def test_error_without_body_gets_one(gateway: RunningEdge, reason: grpc.StatusCode, status: int, kind: str, code: str | None) -> None:
    response = await gateway.http.get(f"/v1/models/status-{reason.name}")
    assert_openai_error(response, status, kind, code)
    assert "gRPC's own text" not in response.text


async def test_error_of_a_unary_method_becomes_the_answer_too(gateway: RunningEdge) -> None:
    response = await gateway.http.get("/v1/models/none")
    assert (response.status_code, response.json()) == (404, {"error": {"code": "model_not_found"}})
    assert (response.headers["content-type"], response.headers["retry-after"]) == ("application/json", "3")


async def test_error_after_the_first_frame_breaks_the_stream_off(gateway: RunningEdge) -> None:
    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="text/event-stream", data=b"data: last\n\n")
        context.set_trailing_metadata((("x-openai-error", ERROR_BODY),))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    gateway.answer(answer)
    async with gateway.http.stream("POST", CHAT, json={}) as response:
        received = []
        with pytest.raises(httpx.RemoteProtocolError):
            async for data in response.aiter_bytes():
                received.append(data)
    assert (response.status_code, received) == (200, [b"data: last\n\n"])


async def test_twenty_megabytes_pass(gateway: RunningEdge) -> None:
    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="application/json", data=str(len(request.body.data)).encode())

    gateway.answer(answer)
    assert (await gateway.http.post(CHAT, content=b"x" * 20_000_000)).text == "20000000"


async def test_more_than_32_mebibytes_are_refused(gateway: RunningEdge) -> None:
    assert_openai_error(await gateway.http.post(CHAT, content=b"x" * (33 << 20)), 413, "invalid_request_error", "request_too_large")


async def test_large_headers_are_refused(gateway: RunningEdge) -> None:
    response = await gateway.http.get("/", headers={"x-large": "x" * 100_000})
    assert_openai_error(response, 431, "invalid_request_error", "headers_too_large")


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/v2/chat/completions",
        "/v1/chat/completions/x",
        "/api/admin",
        '/a"b',
        "/healthz/x",
        "/v1/providers/lab",
        "/admin/providers",
    ],
)
async def test_unknown_path_is_not_found(gateway: RunningEdge, path: str) -> None:
    assert_openai_error(await gateway.http.get(path), 404, "invalid_request_error", "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST"),
        ("PUT", CHAT, "POST"),
        ("OPTIONS", CHAT, "POST"),
        ("POST", "/", "GET"),
        ("POST", "/health", "GET"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/a/b", "GET"),
        ("POST", "/api/admin/entries", "GET"),
        ("POST", "/providers", "GET"),
        ("POST", "/api/providers", "GET"),
        ("DELETE", "/v1/providers", "GET"),
        ("PUT", "/v1/providers/lab/health", "GET"),
        ("POST", "/api/circuit-breakers", "GET"),
        ("DELETE", "/admin/providers/lab/circuit-breaker", "GET"),
        ("GET", "/admin/providers/lab/circuit-breaker/reset", "POST"),
        ("POST", "/api/cache/stats", "GET"),
        ("DELETE", "/v1/cache/stats", "GET"),
        ("GET", "/api/cache/invalidate", "POST"),
        ("GET", "/v1/cache", "DELETE"),
        ("POST", "/api/admin/routing", "GET, PUT"),
        ("PUT", "/api/admin/routing/versions", "GET"),
        ("GET", "/api/admin/routing/versions/3/restore", "POST"),
    ],
)
async def test_wrong_method_says_which_is_right(gateway: RunningEdge, method: str, path: str, allow: str) -> None:
    response = await gateway.http.request(method, path)
    assert_openai_error(response, 405, "invalid_request_error", "method_not_allowed")
    assert response.headers["allow"] == allow


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v1/models", '{"object": "list", "data": []}'),
        ("/v1/models/lab/large", "lab/large"),
        ("/v1/models/lab%2Flarge%20x", "lab/large x"),
        ("//v1//models/m", "m"),
        ("/", '{"page": "summary"}'),
        ("/health?verbose=1", '{"page": "health"}'),
    ],
)
async def test_reading_paths_reach_the_router(gateway: RunningEdge, path: str, text: str) -> None:
    response = await gateway.http.get(str(gateway.http.base_url).rstrip("/") + path)
    assert (response.status_code, response.text) == (200, text)


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("GET", "/providers", "statuses"),
        ("GET", "/api/providers?x=1", "summaries"),
        ("GET", "/v1/providers", "providers"),
        ("GET", "/v1/providers/my-lab.2/health", "health of my-lab.2"),
        ("GET", "/v1/providers/a%20b/health", "health of a b"),
        ("GET", "/api/circuit-breakers", "breakers"),
        ("GET", "/admin/providers/lab/circuit-breaker", "breaker of lab"),
        ("POST", "/admin/providers/lab/circuit-breaker/reset", "reset of lab"),
    ],
)
async def test_providers_are_shown_by_dispatch(gateway: RunningEdge, method: str, path: str, text: str) -> None:
    response = await gateway.http.request(method, path)
    assert (response.status_code, response.text) == (200, text)


@pytest.mark.parametrize("body", [b"", b"{}", b"no JSON", b'{"provider": "other"}'], ids=repr)
async def test_reset_takes_any_body_and_reads_none(gateway: RunningEdge, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = await gateway.http.post("/admin/providers/lab/circuit-breaker/reset", content=body, headers=headers)
    assert (response.status_code, response.text) == (200, "reset of lab")


async def test_grpc_clients_reach_the_providers_too(gateway: RunningEdge) -> None:
    stub = providers_pb_grpc.ProvidersServiceStub(gateway.channel)
    response = await stub.ListBreakers(providers_pb.ListBreakersRequest(provider="lab"))
    assert [breaker.provider for breaker in response.breakers] == ["lab"]


async def test_admin_is_typed_and_prints_every_field_by_its_proto_name(gateway: RunningEdge) -> None:
    async def answer(request: admin_pb.ListEntriesRequest, context: Context) -> admin_pb.ListEntriesResponse:
        response = admin_pb.ListEntriesResponse(next_page_token=f"{request.page_size}/{request.page_token}")
        response.entries.add(request_id="r", cost_nano_usd=5)
        return response

    gateway.mesh.admin.answers.append(answer)
    body = (await gateway.http.get("/api/admin/entries?page_size=3&page_token=t&unknown=1")).json()
    assert body["next_page_token"] == "3/t"
    assert body["entries"][0]["cost_nano_usd"] == "5"
    assert body["entries"][0]["tokens_estimated"] is False


async def test_bad_query_is_an_openai_error_with_its_text_escaped(gateway: RunningEdge) -> None:
    response = await gateway.http.get('/api/admin/entries?page_size=a"b')
    assert_openai_error(response, 400, "invalid_request_error", None)
    assert '"a"b"' in response.json()["error"]["message"]


async def test_console_is_a_page(gateway: RunningEdge) -> None:
    for path in ("/console", "/console/", "/console/keys"):
        response = await gateway.http.get(path)
        assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (await gateway.http.get("/consoles")).status_code == 404


async def test_allowed_origin_gets_cors_headers(gateway: RunningEdge) -> None:
    asking = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "authorization,x-stainless-os"}
    preflight = await gateway.http.options(CHAT, headers=asking)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert preflight.headers["access-control-allow-headers"] == "authorization, *"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    missing = failure(grpc.StatusCode.NOT_FOUND, ("x-openai-error", ERROR_BODY), ("x-http-status", "404"))
    gateway.answer(whole(b"{}"), missing)
    for _ in range(2):
        response = await gateway.http.post(CHAT, json={}, headers={"origin": ORIGIN})
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["access-control-expose-headers"] == "*"


async def test_other_origin_is_not_allowed(gateway: RunningEdge) -> None:
    asking = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in (await gateway.http.options(CHAT, headers=asking)).headers
    assert "access-control-allow-origin" not in (await gateway.http.get("/", headers=asking)).headers


async def test_without_origins_there_is_no_cors() -> None:
    async with running_edge(()) as bare:
        asking = {"origin": ORIGIN, "access-control-request-method": "POST"}
        for response in (await bare.http.options(CHAT, headers=asking), await bare.http.get("/", headers=asking)):
            assert not [name for name in response.headers if name.startswith("access-control-")]


async def test_request_id_is_kept_or_made_and_told(gateway: RunningEdge) -> None:
    seen: list[str] = []

    async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        seen.append(str(dict(context.invocation_metadata() or ())["x-request-id"]))
        await context.send_initial_metadata((("x-request-id", seen[-1]),))
        yield HttpBody(content_type="application/json", data=b"{}")

    gateway.answer(answer, answer)
    kept = await gateway.http.post(CHAT, json={}, headers={"x-request-id": "my-own_id"})
    made = await gateway.http.post(CHAT, json={})
    assert [kept.headers["x-request-id"], made.headers["x-request-id"]] == seen
    assert seen[0] == "my-own_id"
    assert len(seen[1]) == 36
    assert (await gateway.http.get("/nothing", headers={"x-request-id": "lost"})).headers["x-request-id"] == "lost"


async def test_access_log_tells_no_query_and_no_secret(gateway: RunningEdge) -> None:
    gateway.answer(whole(b"{}"))
    headers = {"x-request-id": "logged", "authorization": "Bearer sk-secret"}
    await gateway.http.post(f"{CHAT}?q=private", json={"prompt": "private"}, headers=headers)

    async def is_logged() -> bool:
        return '"logged"' in gateway.log.read_text()

    await eventually(is_logged)
    text = gateway.log.read_text()
    entry = json.loads(next(line for line in text.splitlines() if '"logged"' in line))
    assert (entry["method"], entry["path"], entry["status"], entry["upstream"]) == ("POST", CHAT, 200, "router-http")
    assert "private" not in text
    assert "sk-secret" not in text


async def test_grpc_clients_use_the_same_port(gateway: RunningEdge) -> None:
    request = chat_pb.CompleteChatRequest()
    request.request.model = "m"
    assert (await chat_pb_grpc.ChatServiceStub(gateway.channel).CompleteChat(request)).completion.id == "m"


async def test_grpc_client_gets_status_and_trailers_untouched(gateway: RunningEdge) -> None:
    request = chat_pb.CompleteChatRequest()
    request.request.model = "fail"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chat_pb_grpc.ChatServiceStub(gateway.channel).CompleteChat(request)
    trailers = dict(caught.value.trailing_metadata() or ())
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "the purse is empty")
    assert (trailers["x-openai-error"], trailers["x-http-status"]) == ('{"error": {}}', "402")


async def test_internals_are_not_reachable(gateway: RunningEdge) -> None:
    channel = gateway.channel
    calls: list[Any] = [
        cache_pb_grpc.CacheServiceStub(channel).LookUp(cache_pb.LookUpRequest()),
        dispatch_pb_grpc.DispatchServiceStub(channel).ListProviders(dispatch_pb.ListProvidersRequest()),
        anext(aiter(dispatch_pb_grpc.DispatchServiceStub(channel).WatchProviders(dispatch_pb.WatchProvidersRequest()))),
        anext(aiter(dispatch_pb_grpc.DispatchServiceStub(channel).Dispatch(dispatch_pb.DispatchRequest()))),
        ledger_pb_grpc.LedgerServiceStub(channel).GetTotals(ledger_pb.GetTotalsRequest()),
        key_pb_grpc.KeyServiceStub(channel).ResolveKey(key_pb.ResolveKeyRequest()),
        anext(aiter(key_pb_grpc.KeyServiceStub(channel).WatchKeys(key_pb.WatchKeysRequest()))),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    session = session_pb_grpc.SessionServiceStub(channel).Connect()
    assert await session.code() is grpc.StatusCode.UNIMPLEMENTED
    for path in ("/joulegate.ledger.v1.LedgerService/GetTotals", "/joulegate.openai.v1./../joulegate.ledger.v1.LedgerService/GetTotals"):
        assert (await gateway.http.post(path)).status_code == 404


async def test_http2_clients_are_served(gateway: RunningEdge) -> None:
    """A gRPC client of the REST service proves h2c; its answer is the HttpBody itself."""
    gateway.answer(whole(b"{}"))
    call = gateway.channel.unary_stream(
        "/joulegate.openai.v1.OpenAIService/CreateChatCompletion",
        request_serializer=pb.CreateChatCompletionRequest.SerializeToString,
        response_deserializer=HttpBody.FromString,
    )
    assert [part.data async for part in call(pb.CreateChatCompletionRequest())] == [b"{}"]


@pytest.mark.parametrize("service", SERVICES)
async def test_healthz_follows_each_needed_service(gateway: RunningEdge, service: str) -> None:
    healthy = await gateway.http.get("/healthz?probe=1")
    assert (healthy.status_code, healthy.json()) == (200, {"status": "ok"})
    await gateway.mesh.stop(service)
    await eventually(lambda: has_status(gateway.http, "/healthz", 503))
    assert_openai_error(await gateway.http.get("/healthz"), 503, "server_error", "service_unavailable")
    await gateway.mesh.start(service)
    await eventually(lambda: has_status(gateway.http, "/healthz", 200))


async def test_healthz_follows_chat_by_http_too(gateway: RunningEdge) -> None:
    await gateway.mesh.stop_face("router")
    await eventually(lambda: has_status(gateway.http, "/healthz", 503))
    assert_openai_error(await gateway.http.post(CHAT, json={}), 503, "server_error", "service_unavailable")
    await gateway.mesh.start_face("router")
    await eventually(lambda: has_status(gateway.http, "/healthz", 200))


async def test_service_that_is_down_is_a_503_for_rest_and_unavailable_for_grpc(gateway: RunningEdge) -> None:
    await gateway.mesh.stop("ledger")
    try:
        assert_openai_error(await gateway.http.get("/api/admin/entries"), 503, "server_error", "service_unavailable")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await admin_pb_grpc.AdminServiceStub(gateway.channel).ListEntries(admin_pb.ListEntriesRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "{" not in (caught.value.details() or "")
        assert str(gateway.mesh.folder) not in (caught.value.details() or "")
    finally:
        await gateway.mesh.start("ledger")
        await eventually(lambda: has_status(gateway.http, "/healthz", 200))


@pytest.mark.parametrize(
    ("clusters", "sockets"),
    [
        ("sockets", {"router": "router.sock", "router-http": "http.sock", "dispatch": "dispatch.sock", "ledger": "ledger.sock"}),
        ("sockets", {"router": "all.sock", "router-http": "http.sock", "dispatch": "all.sock", "ledger": "all.sock"}),
        ("compose", {}),
    ],
    ids=["sockets", "one-process", "compose"],
)
async def test_envoy_accepts_every_configuration(tmp_path: Path, clusters: str, sockets: dict[str, str]) -> None:
    paths = {service: tmp_path / name for service, name in sockets.items()}
    config = edge.write(edge.Edge(tmp_path, "0.0.0.0", 8000, tmp_path / "admin.sock", clusters, ("*",), paths), tmp_path)
    checked = subprocess.run([ENVOY, "--mode", "validate", "-c", config], capture_output=True, text=True)  # noqa: ASYNC221 - short
    assert checked.returncode == 0, checked.stderr
