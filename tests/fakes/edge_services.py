"""The services that Envoy sees, with scripted answers: a router, a ledger, and a dispatch that shows its providers.

As a program it is one service, or `up` with this program as every service: `python -m tests.fakes.edge_services router | up`. There the
router's chat answer is a stream that ends when its folder has a file `finish`.
"""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
from google.api.httpbody_pb2 import HttpBody
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from joulegate.chat.v1 import chat_service_pb2 as chat_pb
from joulegate.chat.v1 import chat_service_pb2_grpc as chat_pb_grpc
from joulegate.ledger.v1 import admin_service_pb2 as admin_pb
from joulegate.ledger.v1 import admin_service_pb2_grpc as admin_pb_grpc
from joulegate.openai.v1 import openai_service_pb2 as pb
from joulegate.openai.v1 import openai_service_pb2_grpc as pb_grpc
from joulegate.ops.v1 import ops_service_pb2 as ops_pb
from joulegate.ops.v1 import ops_service_pb2_grpc as ops_pb_grpc
from joulegate.ops.v1 import providers_service_pb2 as providers_pb
from joulegate.ops.v1 import providers_service_pb2_grpc as providers_pb_grpc
from services.runtime import http_face
from services.runtime.http_face import HttpFace, routes
from services.runtime.registry import Registry
from services.runtime.tracing import Tracing
from services.up import gateway

Context = grpc.aio.ServicerContext[Any, Any]
ChatAnswer = Callable[[pb.CreateChatCompletionRequest, Context], AsyncIterator[HttpBody]]
EntriesAnswer = Callable[[admin_pb.ListEntriesRequest, Context], Awaitable[admin_pb.ListEntriesResponse]]

SERVICES: Final[Mapping[str, str]] = {
    "router": "joulegate.openai.v1.OpenAIService",
    "dispatch": "joulegate.dispatch.v1.DispatchService",
    "ledger": "joulegate.ledger.v1.LedgerService",
}
DRAIN_S: Final = 5.0
SERVER_OPTIONS: Final = [("grpc.max_receive_message_length", 64 << 20)]


async def _next(answers: deque[Any], context: Context) -> Any:
    if not answers:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no answer was scripted")
    return answers.popleft()


class FakeOpenAI(pb_grpc.OpenAIServiceServicer):
    """Answers chat completions as scripted; GetModel says what it was asked, and fails for `none`, `status-<code>`, `http-<status>`."""

    def __init__(self) -> None:
        self.answers: deque[ChatAnswer] = deque()

    async def CreateChatCompletion(self, request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        answer: ChatAnswer = await _next(self.answers, context)
        async for part in answer(request, context):
            yield part

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> HttpBody:
        return HttpBody(content_type="application/json", data=b'{"object": "list", "data": []}')

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> HttpBody:
        if request.model == "none":
            context.set_trailing_metadata((("x-openai-error", '{"error": {"code": "model_not_found"}}'), ("retry-after", "3")))
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        kind, _, detail = request.model.partition("-")
        if kind == "status":
            await context.abort(grpc.StatusCode[detail], "gRPC's own text")
        if kind == "http":
            context.set_trailing_metadata((("x-openai-error", '{"error": {"code": "chosen"}}'), ("x-http-status", detail)))
            await context.abort(grpc.StatusCode.INTERNAL, "gRPC's own text")
        return HttpBody(content_type="text/plain", data=request.model.encode())


class FakeOps(ops_pb_grpc.OpsServiceServicer):
    async def GetSummary(self, request: ops_pb.GetSummaryRequest, context: Context) -> HttpBody:
        return HttpBody(content_type="application/json", data=b'{"page": "summary"}')

    async def GetHealth(self, request: ops_pb.GetHealthRequest, context: Context) -> HttpBody:
        return HttpBody(content_type="application/json", data=b'{"page": "health"}')


class FakeProviders(providers_pb_grpc.ProvidersServiceServicer):
    """Says which method was called for which provider."""

    async def ListBreakers(self, request: providers_pb.ListBreakersRequest, context: Context) -> providers_pb.ListBreakersResponse:
        response = providers_pb.ListBreakersResponse()
        response.breakers.add(provider=request.provider)
        return response

    async def GetBreaker(self, request: providers_pb.GetBreakerRequest, context: Context) -> providers_pb.GetBreakerResponse:
        return providers_pb.GetBreakerResponse()

    async def ResetBreaker(self, request: providers_pb.ResetBreakerRequest, context: Context) -> providers_pb.ResetBreakerResponse:
        return providers_pb.ResetBreakerResponse()

    async def ListProviderStatuses(self, request: providers_pb.ListProviderStatusesRequest, context: Context) -> HttpBody:
        return _said("statuses")

    async def ListProviderSummaries(self, request: providers_pb.ListProviderSummariesRequest, context: Context) -> HttpBody:
        return _said("summaries")

    async def ListProviders(self, request: providers_pb.ListProvidersRequest, context: Context) -> HttpBody:
        return _said("providers")

    async def GetProviderHealth(self, request: providers_pb.GetProviderHealthRequest, context: Context) -> HttpBody:
        return _said(f"health of {request.provider}")

    async def ListCircuitBreakers(self, request: providers_pb.ListCircuitBreakersRequest, context: Context) -> HttpBody:
        return _said("breakers")

    async def GetCircuitBreaker(self, request: providers_pb.GetCircuitBreakerRequest, context: Context) -> HttpBody:
        return _said(f"breaker of {request.provider}")

    async def ResetCircuitBreaker(self, request: providers_pb.ResetCircuitBreakerRequest, context: Context) -> HttpBody:
        return _said(f"reset of {request.provider}")


def _said(text: str) -> HttpBody:
    return HttpBody(content_type="text/plain", data=text.encode())


class FakeChat(chat_pb_grpc.ChatServiceServicer):
    """Echoes the model as the completion's id; a model named `fail` aborts as a real service does."""

    async def CompleteChat(self, request: chat_pb.CompleteChatRequest, context: Context) -> chat_pb.CompleteChatResponse:
        if request.request.model == "fail":
            context.set_trailing_metadata((("x-openai-error", '{"error": {}}'), ("x-http-status", "402")))
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the purse is empty")
        response = chat_pb.CompleteChatResponse()
        response.completion.id = request.request.model
        return response

    async def StreamChat(self, request: chat_pb.StreamChatRequest, context: Context) -> AsyncIterator[chat_pb.StreamChatResponse]:
        yield chat_pb.StreamChatResponse()


class FakeAdmin(admin_pb_grpc.AdminServiceServicer):
    def __init__(self) -> None:
        self.answers: deque[EntriesAnswer] = deque()

    async def ListEntries(self, request: admin_pb.ListEntriesRequest, context: Context) -> admin_pb.ListEntriesResponse:
        answer: EntriesAnswer = await _next(self.answers, context)
        return await answer(request, context)


@dataclass(slots=True)
class FakeMesh:
    """The three services on Unix sockets in one folder. Each can be stopped and started again."""

    folder: Path
    openai: FakeOpenAI = field(default_factory=FakeOpenAI)
    admin: FakeAdmin = field(default_factory=FakeAdmin)
    _servers: dict[str, grpc.aio.Server] = field(default_factory=dict)
    _faces: dict[str, AsyncExitStack] = field(default_factory=dict)

    def socket(self, name: str) -> Path:
        return self.folder / f"{name}.sock"

    async def start(self, name: str) -> None:
        server = grpc.aio.server(options=SERVER_OPTIONS)
        statuses = health.aio.HealthServicer()
        for service in ("", *SERVICES.values()):
            await statuses.set(service, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(statuses, server)
        if name in ("router", "all"):
            pb_grpc.add_OpenAIServiceServicer_to_server(self.openai, server)
            ops_pb_grpc.add_OpsServiceServicer_to_server(FakeOps(), server)
            chat_pb_grpc.add_ChatServiceServicer_to_server(FakeChat(), server)
        if name in ("dispatch", "all"):
            providers_pb_grpc.add_ProvidersServiceServicer_to_server(FakeProviders(), server)
        if name in ("ledger", "all"):
            admin_pb_grpc.add_AdminServiceServicer_to_server(self.admin, server)
        server.add_insecure_port(f"unix:{self.socket(name)}")
        await server.start()
        self._servers[name] = server
        self._faces[name] = AsyncExitStack()
        if name in ("router", "all"):
            await self.start_face(name)

    async def start_face(self, name: str) -> None:
        """Begins to take chat by HTTP."""
        registry = Registry(lambda path, handler: handler)
        pb_grpc.add_OpenAIServiceServicer_to_server(self.openai, registry)
        face = HttpFace(routes(registry), Tracing())
        await self._faces[name].enter_async_context(http_face.serve(face, f"unix:{self.socket('router-http')}", DRAIN_S))

    async def stop_face(self, name: str) -> None:
        """Takes no chat by HTTP any more; the service itself goes on."""
        await self._faces[name].aclose()

    async def stop(self, name: str, grace_s: float | None = None) -> None:
        await asyncio.gather(self._faces.pop(name).aclose(), self._servers.pop(name).stop(grace_s))

    def unconsumed(self) -> int:
        """Scripted answers that nobody asked for."""
        return len(self.openai.answers) + len(self.admin.answers)


@asynccontextmanager
async def fake_mesh(folder: Path) -> AsyncIterator[FakeMesh]:
    mesh = FakeMesh(folder)
    await asyncio.gather(*(mesh.start(name) for name in SERVICES))
    try:
        yield mesh
    finally:
        await asyncio.gather(*(mesh.stop(name) for name in list(mesh._servers)))


async def _stream_until_finished(request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
    finish = Path(os.environ["JOULEGATE_DATA_DIR"]) / "finish"
    yield HttpBody(content_type="text/event-stream", data=b"data: first\n\n")
    while not finish.exists():
        await asyncio.sleep(0.01)
    yield HttpBody(data=b"data: last\n\n")


async def _serve(name: str) -> None:
    if "FAKE_BROKEN" in os.environ:
        sys.exit(f"{name} is broken")
    address = os.environ["ROUTER_ADDRESS" if name == "all" else f"{name.upper()}_ADDRESS"]
    mesh = FakeMesh(Path(address.removeprefix("unix:")).parent)
    mesh.openai.answers.extend([_stream_until_finished] * 10)
    await mesh.start(name)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await mesh.stop(name, grace_s=float(os.environ["DRAIN_SECONDS"]))


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "tests.fakes.edge_services", name]


if __name__ == "__main__":
    if sys.argv[1] == "up":
        sys.exit(gateway.main("--one-process" in sys.argv, _command))
    asyncio.run(_serve(sys.argv[1]))
