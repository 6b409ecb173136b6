"""ChatService for gRPC clients: through Envoy and at the router's own socket, with what REST clients get."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast
from urllib.parse import urlsplit

import grpc
import pytest
import pytest_asyncio
from google.protobuf import empty_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from joulegate.chat.v1 import chat_pb2, receipt_pb2
from joulegate.chat.v1 import chat_service_pb2 as pb
from joulegate.chat.v1 import chat_service_pb2_grpc as pb_grpc
from services.wire import openai
from tests.fakes.openai_upstream import Fault, OpenAIUpstream, Reply, chunk, completion, error, event, hang, sse, stream, usage_json
from tests.mesh.asking import CHAT, LEAVING_S, chunks_of, http_client, question, sees_leaving
from tests.mesh.gateway import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="session")

UNCACHED = ("cache-control", "no-store")
ENVOY, SOCKET = "envoy", "socket"
LOGPROBS = {"content": [{"token": "Hi", "logprob": -0.25, "bytes": None, "top_logprobs": []}]}
CALL = {"id": "call_0", "type": "function", "function": {"name": "weather", "arguments": '{"place":"Ulm"}'}}
WHOLE: dict[str, Reply] = {
    "text": completion("Grüße", system_fingerprint="fp", service_tier=None),
    "tools and probabilities": completion(
        choices=[
            {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [CALL]}, "finish_reason": "tool_calls"},
            {"index": 1, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "length", "logprobs": LOGPROBS},
        ],
        weird=[1.0, 12345678901234567890],
    ),
}
STREAMS: dict[str, Reply] = {
    "text": stream("Grü", "ße"),
    "tools": sse(
        chunk({"role": "assistant", "content": None}),
        chunk({"tool_calls": [{"index": 0} | CALL]}),
        chunk({}, finish="tool_calls"),
        event({"id": "chatcmpl-1", "choices": [], "usage": usage_json(7, 3), "x_groq": {"seed": 1.0}}),
        b"data: [DONE]\n\n",
    ),
}


def socket_of(gateway: Gateway, service: str) -> str:
    """The address of a service inside the mesh; in one process all have the same."""
    own, shared = gateway.sockets / f"{service}.sock", gateway.sockets / "all.sock"
    return f"unix:{own if own.exists() else shared}"


@pytest_asyncio.fixture(loop_scope="session", params=[ENVOY, SOCKET])
async def channel(request: pytest.FixtureRequest, gateway: Gateway) -> AsyncIterator[grpc.aio.Channel]:
    address = urlsplit(gateway.url).netloc if request.param == ENVOY else socket_of(gateway, "router")
    async with grpc.aio.insecure_channel(address) as opened:
        yield opened


@pytest.fixture
def chat(channel: grpc.aio.Channel) -> Any:
    return pb_grpc.ChatServiceStub(channel)


def asked(**members: Any) -> chat_pb2.ChatRequest:
    """The same question as `question()` asks over REST."""
    return openai.decode_request(json.dumps(question(**members)).encode())


def complete(chat: Any, request_id: str = "", timeout: float = 10, **members: Any) -> Any:
    metadata = (UNCACHED, *((("x-request-id", request_id),) if request_id else ()))
    return chat.CompleteChat(pb.CompleteChatRequest(request=asked(**members)), metadata=metadata, timeout=timeout)


def streaming(chat: Any, request_id: str = "", timeout: float = 10, **members: Any) -> Any:
    metadata = (UNCACHED, *((("x-request-id", request_id),) if request_id else ()))
    return chat.StreamChat(pb.StreamChatRequest(request=asked(**members)), metadata=metadata, timeout=timeout)


def reason_of(failure: grpc.aio.AioRpcError) -> tuple[str, dict[str, str], float | None]:
    """The reason, its metadata, and the wait that is asked for."""
    details = dict(failure.trailing_metadata() or ())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(details)
    assert (status.code, status.message) == (failure.code().value[0], failure.details())
    info, retry, wait = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), None
    for detail in status.details:
        if detail.Unpack(retry):
            wait = retry.retry_delay.ToMilliseconds() / 1000
        assert detail.Unpack(info) or wait is not None
    assert info.domain == "joulegate.dev"
    return info.reason, dict(info.metadata), wait


@pytest.mark.parametrize("case", WHOLE)
async def test_whole_answer_is_the_one_that_rest_clients_get(chat: Any, gateway: Gateway, lab: OpenAIUpstream, case: str) -> None:
    lab.script(WHOLE[case], WHOLE[case])
    async with http_client(gateway) as http:
        over_rest = (await http.post(CHAT, json=question(top_k=40))).json()
    call = complete(chat, top_k=40)
    got = await call
    del over_rest["x-gateway"]
    assert json.loads(openai.encode_completion(got.completion)) == over_rest
    assert lab.calls[0].json | {"stream": False} == lab.calls[1].json
    headers = dict(await call.initial_metadata())
    assert (headers["x-joulegate-provider"], headers["x-joulegate-cache"]) == ("lab", "bypass")
    assert headers["x-request-id"] == got.receipt.request_id


async def test_receipt_says_what_is_booked(chat: Any, gateway: Gateway, lab: OpenAIUpstream) -> None:
    lab.script(completion())
    receipt = (await complete(chat)).receipt
    (row,) = await gateway.settled_entries(receipt.request_id)
    assert (receipt.provider, receipt.model, receipt.cache_status) == ("lab", "small", receipt_pb2.CACHE_STATUS_BYPASS)
    assert (receipt.cost_nano_usd, receipt.energy.microjoules) == (row["cost_nano_usd"], row["energy_microjoules"])
    assert receipt.energy.low_microjoules <= receipt.energy.microjoules <= receipt.energy.high_microjoules
    assert receipt.energy.microjoules > 0 and receipt.failed_attempt_count == 0


@pytest.mark.parametrize("case", STREAMS)
async def test_stream_is_the_one_that_rest_clients_get_with_the_receipt_last(
    chat: Any, gateway: Gateway, lab: OpenAIUpstream, case: str
) -> None:
    lab.script(STREAMS[case], STREAMS[case])
    async with http_client(gateway) as http:
        over_rest = chunks_of((await http.post(CHAT, json=question(stream=True, stream_options={"include_usage": True}))).content)
    messages = [message async for message in streaming(chat)]
    over_rest[-1].pop("x-joulegate")
    assert [json.loads(openai.encode_chunk(piece)) for message in messages for piece in message.chunks] == over_rest
    *others, last = messages
    assert [message.HasField("receipt") for message in others] == [False] * len(others)
    assert last.HasField("receipt") and not last.chunks
    (row,) = await gateway.settled_entries(last.receipt.request_id)
    assert (row["outcome"], row["streamed"]) == ("OUTCOME_FINISHED", True)
    assert last.receipt.cost_nano_usd == row["cost_nano_usd"]


async def test_chunk_arrives_before_the_provider_sends_the_next(chat: Any, lab: OpenAIUpstream) -> None:
    words = ["one", "two", "three"]
    gates = [asyncio.Event() for _ in words]
    steps = [step for word, gate in zip(words, gates, strict=True) for step in (chunk({"content": word}), gate)]
    lab.script(sse(*steps, chunk({}, finish="stop"), b"data: [DONE]\n\n"))
    call = streaming(chat)
    for word, gate in zip(words, gates, strict=True):
        (piece,) = (await call.read()).chunks
        assert piece.choices[0].delta.text == word
        gate.set()
    assert [(await call.read()).HasField("receipt") for _ in range(2)] == [False, True]
    assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("ask", [complete, streaming])
async def test_deadline_ends_the_call_at_the_provider_too(
    chat: Any, gateway: Gateway, lab: OpenAIUpstream, ask: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    lab.script(completion(), hang())
    await complete(chat)  # the first call of a gateway also opens its connections
    request_id = f"deadline-{request.node.callspec.id}"
    call = ask(chat, request_id, timeout=0.5)
    started = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (call if ask is complete else call.read())
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 1.5
    await asyncio.wait_for(lab.calls[1].disconnected.wait(), LEAVING_S)
    (row,) = await gateway.settled_entries(request_id)
    assert row["outcome"] in ("OUTCOME_TIMED_OUT", "OUTCOME_CLIENT_LEFT")  # whichever end looks at its clock first
    assert row["tokens_estimated"] is True


async def test_cancelled_stream_stops_the_provider_and_is_booked(
    chat: Any, gateway: Gateway, lab: OpenAIUpstream, request: pytest.FixtureRequest
) -> None:
    lab.script(stream("One two three", Fault.HANG))
    request_id = f"cancel-{request.node.callspec.id}"
    call = streaming(chat, request_id)
    while "three" not in str(await call.read()):
        pass
    call.cancel()
    left_at = time.monotonic()
    await sees_leaving(lab.calls[0], left_at)
    (row,) = await gateway.settled_entries(request_id)
    assert (row["outcome"], row["output_tokens"], row["tokens_estimated"]) == ("OUTCOME_CLIENT_LEFT", 3, True)


async def test_cancelled_call_stops_the_provider_and_is_booked(
    chat: Any, gateway: Gateway, lab: OpenAIUpstream, request: pytest.FixtureRequest
) -> None:
    lab.script(hang())
    request_id = f"cancel-whole-{request.node.callspec.id}"
    call = complete(chat, request_id)
    await lab.arrived()
    call.cancel()
    await asyncio.wait_for(lab.calls[0].disconnected.wait(), LEAVING_S)
    (row,) = await gateway.settled_entries(request_id)
    assert (row["outcome"], row["streamed"]) == ("OUTCOME_CLIENT_LEFT", False)


LIMITED = error(429, "slow", {"retry-after": "7"})
FAILURES: dict[str, tuple[dict[str, Any], Reply | None, grpc.StatusCode, str, dict[str, str], float | None]] = {
    "unknown model": ({"model": "nope"}, None, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", {"param": "model", "model": "nope"}, None),
    "rejected": (
        {}, error(400, "hot", code="c"), grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_REJECTED",
        {"provider": "lab", "http_status": "400", "code": "c", "type": "fake_error"}, None,
    ),
    "limit": ({}, LIMITED, grpc.StatusCode.RESOURCE_EXHAUSTED, "PROVIDER_RATE_LIMITED", {"provider": "lab"}, 7.0),
    "fault": ({}, error(500, "boom"), grpc.StatusCode.UNAVAILABLE, "PROVIDERS_EXHAUSTED", {"provider": "lab"}, None),
}  # fmt: skip


@pytest.mark.parametrize("ask", [complete, streaming])
@pytest.mark.parametrize("case", FAILURES)
async def test_failure_has_a_reason(
    chat: Any, lab: OpenAIUpstream, small_models: Iterator[str], ask: Callable[..., Any], case: str
) -> None:
    members, reply, code, reason, metadata, wait = FAILURES[case]
    if reply is LIMITED:
        members = {"model": next(small_models)}
    if reply is not None:
        lab.script(reply)
    call = ask(chat, **members)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (call if ask is complete else call.read())
    assert raised.value.code() == code
    assert reason_of(raised.value) == (f"ERROR_REASON_{reason}", metadata, wait)


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (chat_pb2.ChatRequest(model="small"), "messages"),
        (chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text="x")]), "model"),
        (chat_pb2.ChatRequest(model="small", messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER)], extra_json=b'{"n": "x"}'), "n"),
    ],
    ids=["no messages", "no model", "extra member of a wrong type"],
)
async def test_request_that_is_none_is_refused_by_its_field(chat: Any, request_: chat_pb2.ChatRequest, param: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await chat.CompleteChat(pb.CompleteChatRequest(request=request_))
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(raised.value) == ("ERROR_REASON_INVALID_REQUEST", {"param": param}, None)


async def test_stream_that_the_provider_cuts_ends_with_a_status_and_without_a_receipt(
    chat: Any, gateway: Gateway, lab: OpenAIUpstream, request: pytest.FixtureRequest
) -> None:
    lab.script(stream("One two three", Fault.RESET))
    request_id = f"cut-{request.node.callspec.id}"
    messages = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for message in streaming(chat, request_id):
            messages.append(message)
    assert "One two three" in "".join(piece.choices[0].delta.text for message in messages for piece in message.chunks)
    assert not [message for message in messages if message.HasField("receipt")]
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert reason_of(raised.value)[0] == "ERROR_REASON_STREAM_CUT"
    (row,) = await gateway.settled_entries(request_id)
    assert (row["outcome"], row["output_tokens"]) == ("OUTCOME_STREAM_CUT", 3)


async def test_answers_are_shared_with_rest_clients_through_the_cache(chat: Any, gateway: Gateway, request: pytest.FixtureRequest) -> None:
    text = f"What do REST and gRPC share? {request.node.callspec.id}"
    async with http_client(gateway, **{"cache-control": "max-age=60"}) as http:
        first = (await http.post(CHAT, json=question(text, model="demo"))).json()
    again = await chat.CompleteChat(pb.CompleteChatRequest(request=asked(text=text, model="demo")))
    assert again.receipt.cache_status == receipt_pb2.CACHE_STATUS_HIT_EXACT
    assert again.receipt.cost_nano_usd == 0
    assert again.completion.choices[0].message.text == first["choices"][0]["message"]["content"]


async def test_reflection_lists_the_public_services(channel: grpc.aio.Channel) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast(Any, channel))
    asking = reflection_pb2.ServerReflectionRequest(list_services="")
    (response,) = [response async for response in stub.ServerReflectionInfo(iter([asking]), timeout=10)]
    names = {service.name for service in response.list_services_response.service}
    assert names >= {"joulegate.chat.v1.ChatService", "joulegate.openai.v1.OpenAIService", "grpc.health.v1.Health"}


@pytest.mark.parametrize("service", ["", "joulegate.chat.v1.ChatService", "joulegate.openai.v1.OpenAIService"])
async def test_health_is_serving(channel: grpc.aio.Channel, service: str) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert response.status == health_pb2.HealthCheckResponse.SERVING


INTERNAL = {
    "/joulegate.cache.v1.CacheService/LookUp": "cache",
    "/joulegate.cache.v1.CacheService/Store": "cache",
    "/joulegate.dispatch.v1.DispatchService/ListProviders": "dispatch",
    "/joulegate.dispatch.v1.DispatchService/Dispatch": "dispatch",
    "/joulegate.ledger.v1.LedgerService/GetTotals": "ledger",
    "/joulegate.ledger.v1.LedgerService/Book": "ledger",
    "/joulegate.session.v1.SessionService/Connect": "router",
}


async def code_of(channel: grpc.aio.Channel, path: str) -> grpc.StatusCode:
    """How a method ends that is asked with an empty message."""
    ask = channel.unary_stream(path, request_serializer=empty_pb2.Empty.SerializeToString, response_deserializer=bytes)
    call: Any = ask(empty_pb2.Empty(), timeout=5)
    try:
        await call.read()
    except grpc.aio.AioRpcError as failure:
        return failure.code()
    call.cancel()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("path", INTERNAL)
async def test_inner_services_cannot_be_reached_through_envoy(gateway: Gateway, path: str) -> None:
    async with grpc.aio.insecure_channel(urlsplit(gateway.url).netloc) as outside:
        assert await code_of(outside, path) == grpc.StatusCode.UNIMPLEMENTED
    async with grpc.aio.insecure_channel(socket_of(gateway, INTERNAL[path])) as inside:
        assert await code_of(inside, path) != grpc.StatusCode.UNIMPLEMENTED
