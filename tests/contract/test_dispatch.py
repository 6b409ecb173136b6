"""DispatchService as its proto says, built by its own composition root, over gRPC and in process, against a provider over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import structlog
from google.protobuf.duration_pb2 import Duration

from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from joulegate.dispatch.v1 import dispatch_service_pb2_grpc as pb_grpc
from services.dispatch.__main__ import build
from services.dispatch.settings import DispatchSettings
from services.runtime.errors import GatewayError
from services.runtime.interceptors import guard
from services.runtime.local import LocalChannel
from services.runtime.mesh import LocalMesh
from services.runtime.registry import Registry
from services.runtime.settings import load
from services.runtime.tracing import Tracing
from tests.fakes.openai_upstream import Fault, OpenAIUpstream, Reply, answer, chunk, completion, error, hang, reset, sse, stream

KEY = "sk-canary-123"
USER = chat_pb2.Message(role=chat_pb2.ROLE_USER, text="What is a joule?")


@dataclass
class Service:
    """A running dispatch with two providers: `lab`, whose models are listed by itself, and `spare`, with a configured list."""

    stub: pb_grpc.DispatchServiceStub
    mesh: LocalMesh
    lab: OpenAIUpstream
    spare: OpenAIUpstream

    def dispatch(
        self,
        *targets: str,
        is_stream: bool = False,
        timeout: float | None = 10,
        metadata: Sequence[tuple[str, str]] = (),
        hedge: pb.Hedge | None = None,
    ) -> grpc.aio.UnaryStreamCall[pb.DispatchRequest, pb.DispatchResponse]:
        request = chat_pb2.ChatRequest(model="auto", messages=[USER], stream=is_stream)
        parts = [target.split("/", 1) for target in targets]
        return self.stub.Dispatch(
            pb.DispatchRequest(
                request_id="r-1",
                request=request,
                targets=[pb.Target(provider=provider, model=model) for provider, model in parts],
                hedge=hedge,
            ),
            timeout=timeout,
            metadata=tuple(metadata),
        )


@pytest.fixture(params=["grpc", "local"])
def channel_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def service(channel_kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(OpenAIUpstream())
        spare = await stack.enter_async_context(OpenAIUpstream())
        config = tmp_path / "joulegate.toml"
        config.write_text(
            f"""
            [providers.lab]
            kind = "openai"
            base_url = "{lab.base_url}"
            api_key_env = "LAB_API_KEY"
            timeouts = {{ connect = 2, first_byte = 0.5, idle = 0.5, total = 0.5 }}
            [providers.spare]
            kind = "openai"
            base_url = "{spare.base_url}"
            models = ["small"]
            [retry]
            attempts = 1
            """
        )
        environment = {"JOULEGATE_CONFIG": str(config), "LAB_API_KEY": KEY, "ENABLE_OLLAMA": "false"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        mesh = LocalMesh(Registry(guard), Tracing())
        await stack.enter_async_context(build(load(DispatchSettings, environment), mesh))
        channel = await stack.enter_async_context(_channel(channel_kind, mesh.registry, tmp_path))
        yield Service(pb_grpc.DispatchServiceStub(channel), mesh, lab, spare)


@asynccontextmanager
async def _channel(kind: str, registry: Registry, folder: Path) -> AsyncIterator[grpc.aio.Channel]:
    if kind == "local":
        yield LocalChannel(registry)
        return
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((registry.generic_handler(),))
    address = f"unix:{folder}/dispatch.sock"
    server.add_insecure_port(address)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield channel
    finally:
        await server.stop(0)


async def collected(call: grpc.aio.UnaryStreamCall[pb.DispatchRequest, pb.DispatchResponse]) -> list[pb.DispatchResponse]:
    return [response async for response in call]


async def error_of(
    call: grpc.aio.UnaryStreamCall[pb.DispatchRequest, pb.DispatchResponse],
) -> tuple[GatewayError, list[pb.DispatchResponse]]:
    responses: list[pb.DispatchResponse] = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for response in call:
            responses.append(response)
    return GatewayError.from_rpc(raised.value), responses


def text_of(responses: Sequence[pb.DispatchResponse]) -> str:
    chunks = [event.chunk for response in responses for event in response.events]
    return "".join(choice.delta.text for one in chunks for choice in one.choices)


# --- Dispatch: answers ---


async def test_a_whole_answer_is_one_message(service: Service) -> None:
    service.lab.script(completion("Energy."))
    [response] = await collected(service.dispatch("lab/small"))
    assert response.selected.target == pb.Target(provider="lab", model="small")
    assert response.events[0].completion.choices[0].message.text == "Energy."
    assert response.finished.elapsed.ToNanoseconds() >= response.selected.time_to_first_event.ToNanoseconds() > 0
    assert service.lab.calls[0].json == {
        "model": "small",
        "messages": [{"role": "user", "content": "What is a joule?"}],
        "stream": False,
    }


async def test_a_stream_is_relayed_as_it_arrives(service: Service) -> None:
    gate = asyncio.Event()
    service.lab.script(stream("Ener", gate, "gy."))
    call = service.dispatch("lab/small", is_stream=True)
    responses = aiter(call)
    before = [await anext(responses)]
    while "Ener" not in text_of(before):
        before.append(await anext(responses))
    gate.set()
    after = [response async for response in responses]
    assert text_of(before + after) == "Energy."
    assert before[0].HasField("selected")
    assert [response.HasField("finished") for response in before + after][-1]
    assert sum(response.HasField("finished") for response in before + after) == 1
    assert after[-1].events[-1].chunk.usage.total_tokens == 7
    assert service.lab.calls[0].json["stream_options"] == {"include_usage": True}


async def test_events_that_arrived_in_one_read_travel_in_one_message(service: Service) -> None:
    whole = stream("a", "b", "c")
    service.lab.script(sse(b"".join(step for step in whole.steps if isinstance(step, bytes))))
    [response] = await collected(service.dispatch("lab/small", is_stream=True))
    assert len(response.events) == 6
    assert response.HasField("selected")
    assert response.HasField("finished")


async def test_json_for_a_stream_is_a_completion(service: Service) -> None:
    service.lab.script(completion("Energy."))
    [response] = await collected(service.dispatch("lab/small", is_stream=True))
    assert response.events[0].completion.choices[0].message.text == "Energy."


async def test_trace_context_goes_upstream(service: Service) -> None:
    service.lab.script(completion())
    trace = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("tracestate", "a=1"), ("x-other", "no")]
    await collected(service.dispatch("lab/small", metadata=trace))
    headers = {name.lower(): value for name, value in service.lab.calls[0].headers.items()}
    assert {name: headers.get(name) for name, _ in trace} == {**dict(trace), "x-other": None}


# --- Dispatch: failures before the first event ---


async def test_the_next_target_answers_for_one_that_failed(service: Service) -> None:
    service.lab.script(error(503, "busy"))
    service.spare.script(completion("Energy."))
    responses = await collected(service.dispatch("lab/small", "spare/small"))
    [failed] = responses[0].failed_attempts
    assert (failed.target.provider, failed.attempt, failed.code, failed.http_status, failed.message) == ("lab", 1, 14, 503, "busy")
    assert failed.elapsed.ToNanoseconds() > 0
    assert (responses[-1].selected.target.provider, responses[-1].selected.attempt) == ("spare", 2)


@pytest.mark.parametrize(
    "reply",
    [error(500, "x"), error(429, "x"), error(401, "x"), error(404, "x"), reset(), hang(), answer("<html>"), sse(b": hi\n\n"), sse()],
    ids=["500", "429", "401", "404", "reset", "hang", "html", "only a comment", "empty stream"],
)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_whatever_goes_wrong_before_the_first_event_the_next_target_answers(service: Service, reply: Reply, is_stream: bool) -> None:
    service.lab.script(reply)
    service.spare.script(stream("Energy.") if is_stream else completion("Energy."))
    responses = await collected(service.dispatch("lab/small", "spare/small", is_stream=is_stream))
    assert len(responses[0].failed_attempts) == 1
    assert responses[-1].HasField("finished")


async def test_a_rejected_request_keeps_the_vendors_words_and_is_not_tried_elsewhere(service: Service) -> None:
    service.lab.script(error(422, "n is too large", type="invalid_request_error", param="n", code="too_large"))
    raised, responses = await error_of(service.dispatch("lab/small", "spare/small"))
    assert (raised.reason, raised.message, raised.http_status) == (ErrorReason.ERROR_REASON_PROVIDER_REJECTED, "n is too large", 422)
    assert raised.metadata == {
        "provider": "lab",
        "http_status": "422",
        "type": "invalid_request_error",
        "param": "n",
        "code": "too_large",
    }
    assert [one.http_status for response in responses for one in response.failed_attempts] == [422]


async def test_when_every_target_failed_the_last_is_named(service: Service) -> None:
    service.lab.script(error(500, "oops"))
    service.spare.script(error(401, "who are you"))
    raised, responses = await error_of(service.dispatch("lab/small", "spare/small"))
    assert (raised.reason, raised.http_status) == (ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 502)
    assert raised.metadata["provider"] == "spare"
    assert [len(response.failed_attempts) for response in responses] == [1, 0, 1]
    assert [(one.target.provider, one.attempt) for one in responses[1].begun_attempts] == [("spare", 2)]


async def test_when_every_target_is_over_its_limit_the_wait_is_told(service: Service) -> None:
    service.lab.script(error(429, "slow down", {"retry-after": "30"}))
    service.spare.script(error(429, "slow down", {"retry-after": "20"}))
    raised, _ = await error_of(service.dispatch("lab/small", "spare/small"))
    assert (raised.reason, raised.retry_after_s) == (ErrorReason.ERROR_REASON_PROVIDER_RATE_LIMITED, 20.0)


async def test_when_nobody_answers_in_time_it_is_a_timeout(service: Service) -> None:
    service.lab.script(hang())
    raised, _ = await error_of(service.dispatch("lab/small"))
    assert (raised.reason, raised.http_status) == (ErrorReason.ERROR_REASON_PROVIDER_TIMEOUT, 504)
    await service.lab.calls[0].disconnected.wait()


async def test_a_model_that_its_only_provider_lacks_is_not_found(service: Service) -> None:
    service.lab.script(error(404, "The model `x` does not exist", code="model_not_found"))
    raised, _ = await error_of(service.dispatch("lab/x"))
    assert (raised.reason, raised.http_status) == (ErrorReason.ERROR_REASON_MODEL_NOT_FOUND, 404)


async def test_a_provider_that_does_not_exist_is_not_found(service: Service) -> None:
    raised, _ = await error_of(service.dispatch("nobody/small"))
    assert raised.reason == ErrorReason.ERROR_REASON_MODEL_NOT_FOUND


async def test_no_target_is_an_invalid_request(service: Service) -> None:
    raised, _ = await error_of(service.dispatch())
    assert raised.reason == ErrorReason.ERROR_REASON_INVALID_REQUEST


async def test_a_model_that_keeps_failing_is_left_alone_and_the_caller_told_when_to_come_back(service: Service) -> None:
    service.spare.script(*[error(500, "oops")] * 5)
    for _ in range(5):
        await error_of(service.dispatch("spare/small"))
    raised, responses = await error_of(service.dispatch("spare/small"))
    assert (raised.reason, raised.http_status, raised.metadata["code"]) == (
        ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED,
        503,
        "circuit_open",
    )
    assert raised.retry_after_s is not None and 28 < raised.retry_after_s <= 30
    assert (responses, len(service.spare.calls)) == ([], 5)


# --- Dispatch: hedges ---

SOON = pb.Hedge(after=Duration(nanos=50_000_000))
SILENT = [hang(), sse(Fault.HANG), sse(b": patience\n\n", Fault.HANG)]


@pytest.mark.parametrize("reply", SILENT, ids=["no headers", "headers", "a comment"])
async def test_who_is_late_is_overtaken_and_hung_up_on(service: Service, reply: Reply) -> None:
    service.lab.script(reply)
    service.spare.script(stream("Energy."))
    responses = await collected(service.dispatch("lab/small", "spare/small", is_stream=True, hedge=SOON))
    assert text_of(responses) == "Energy."
    [begun] = responses[0].begun_attempts
    assert (begun.target.provider, begun.attempt) == ("spare", 2)
    [overtaken] = responses[1].failed_attempts
    assert (overtaken.target.provider, overtaken.attempt, overtaken.code) == ("lab", 1, 1)
    assert (responses[1].selected.target.provider, responses[1].selected.attempt) == ("spare", 2)
    async with asyncio.timeout(30):
        await service.lab.calls[0].disconnected.wait()


async def test_leaving_two_calls_closes_both_connections(service: Service) -> None:
    service.lab.script(hang())
    service.spare.script(hang())
    call = service.dispatch("lab/small", "spare/small", is_stream=True, hedge=SOON)
    reading = asyncio.ensure_future(call.read())
    arrived = [await service.lab.arrived(), await service.spare.arrived()]
    first = await reading
    assert isinstance(first, pb.DispatchResponse)
    assert [one.target.provider for one in first.begun_attempts] == ["spare"]
    call.cancel()
    async with asyncio.timeout(30):
        await asyncio.gather(*(one.disconnected.wait() for one in arrived))


# --- Dispatch: after the first event ---


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ((), ErrorReason.ERROR_REASON_STREAM_CUT),
        ((Fault.RESET,), ErrorReason.ERROR_REASON_STREAM_CUT),
        ((Fault.CLOSE,), ErrorReason.ERROR_REASON_STREAM_CUT),
        ((b'data: {"error":{"message":"overloaded"}}\n\n', Fault.HANG), ErrorReason.ERROR_REASON_STREAM_CUT),
        ((Fault.HANG,), ErrorReason.ERROR_REASON_PROVIDER_TIMEOUT),
    ],
    ids=["ends", "reset", "closed", "error event", "silent"],
)
async def test_a_stream_that_breaks_is_an_error_and_never_tried_again(
    service: Service, last: tuple[bytes | Fault, ...], reason: ErrorReason.ValueType
) -> None:
    service.lab.script(sse(chunk({"content": "Ener"}), *last))
    raised, responses = await error_of(service.dispatch("lab/small", "spare/small", is_stream=True))
    assert (raised.reason, raised.metadata["provider"]) == (reason, "lab")
    assert text_of(responses) == "Ener"
    assert not any(response.HasField("finished") for response in responses)


# --- Dispatch: leaving ---


@pytest.mark.parametrize("reply", [hang(), sse(chunk({"content": "a"}), Fault.HANG)], ids=["before", "in the middle of"])
async def test_leaving_closes_the_providers_connection(service: Service, reply: Reply) -> None:
    service.spare.script(reply)
    call = service.dispatch("spare/small", is_stream=True)
    reading = asyncio.ensure_future(call.read())
    arrived = await service.spare.arrived()
    if reply.steps:
        await reading
    started = asyncio.get_running_loop().time()
    call.cancel()
    async with asyncio.timeout(30):
        await arrived.disconnected.wait()
    # 100 ms are promised; a loaded machine gets more.
    assert asyncio.get_running_loop().time() - started < 1
    await asyncio.gather(reading, return_exceptions=True)


async def test_the_callers_deadline_ends_the_call_to_the_provider(service: Service) -> None:
    service.spare.script(hang())
    raised, _ = await error_of(service.dispatch("spare/small", timeout=1))
    assert raised.reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED
    await service.spare.calls[0].disconnected.wait()


# --- keys ---


async def test_a_key_shows_up_nowhere_but_at_its_provider(service: Service) -> None:
    service.lab.script(error(400, f"bad {KEY}", code=KEY), answer(f"<title>{KEY}</title>", status=500))
    service.lab.script(sse(chunk({"content": "a"}), b'data: {"error":{"message":"' + KEY.encode() + b'"}}\n\n'))
    seen: list[object] = []
    with structlog.testing.capture_logs() as lines:
        for is_stream in (False, False, True):
            raised, responses = await error_of(service.dispatch("lab/small", is_stream=is_stream))
            seen += [raised, raised.to_status(), raised.openai_body(), *responses]
    seen += [lines, await service.stub.ListProviders(pb.ListProvidersRequest())]
    assert lines
    assert KEY not in "".join(map(repr, seen))
    assert all(call.headers["Authorization"] == f"Bearer {KEY}" for call in service.lab.calls)


# --- demo ---


async def test_the_demo_answers_as_a_provider_does(service: Service) -> None:
    [whole] = await collected(service.dispatch("demo/demo"))
    assert "demo" in whole.events[0].completion.choices[0].message.text
    pieces = await collected(service.dispatch("demo/demo", is_stream=True))
    assert text_of(pieces) == whole.events[0].completion.choices[0].message.text
    assert len(pieces) > 3
    assert pieces[-1].HasField("finished")


async def test_the_demo_has_one_model(service: Service) -> None:
    raised, _ = await error_of(service.dispatch("demo/gpt-4o"))
    assert (raised.reason, raised.http_status) == (ErrorReason.ERROR_REASON_MODEL_NOT_FOUND, 404)


# --- providers ---


async def watched(service: Service, is_it: Callable[[dict[str, pb.Provider]], bool]) -> dict[str, pb.Provider]:
    """Watches until the providers are as wanted."""
    call = service.stub.WatchProviders(pb.WatchProvidersRequest())
    async with asyncio.timeout(30):
        async for response in call:
            providers = {provider.name: provider for provider in response.providers}
            if is_it(providers):
                call.cancel()
                return providers
    raise AssertionError("the watch ended")


async def test_providers_are_listed_in_order_with_their_models(service: Service) -> None:
    await watched(service, lambda providers: bool(providers["lab"].models))
    listed = (await service.stub.ListProviders(pb.ListProvidersRequest())).providers
    assert [(one.name, one.kind, [model.id for model in one.models], one.accepts_unlisted_models, one.healthy) for one in listed] == [
        ("lab", "openai", ["small", "large"], False, True),
        ("spare", "openai", ["small"], False, True),
        ("demo", "demo", ["demo"], False, True),
    ]
    assert service.spare.listings == []


async def test_figures_follow_the_calls(service: Service) -> None:
    service.lab.script(completion(), error(500, "oops"))
    await collected(service.dispatch("lab/small"))
    await error_of(service.dispatch("lab/small"))
    lab = (await service.stub.ListProviders(pb.ListProvidersRequest())).providers[0]
    assert (lab.success_count, lab.failure_count, lab.in_flight_count, lab.last_error) == (1, 1, 0, "HTTP 500")
    assert lab.HasField("time_to_first_event")
    assert lab.HasField("last_success_time")


async def test_a_watcher_learns_of_a_change_of_health_at_once(service: Service) -> None:
    watching = asyncio.create_task(watched(service, lambda providers: not providers["lab"].healthy))
    for _ in range(3):
        service.lab.script(error(503, "busy"))
        await error_of(service.dispatch("lab/small"))
    assert (await watching)["lab"].failure_count == 3


async def test_a_watch_ends_when_the_service_drains(service: Service) -> None:
    call = service.stub.WatchProviders(pb.WatchProvidersRequest())
    first = await call.read()
    assert isinstance(first, pb.WatchProvidersResponse)
    service.mesh.draining.set()
    async with asyncio.timeout(30):
        while await call.read() is not grpc.aio.EOF:
            pass
    assert await call.code() is grpc.StatusCode.OK
