"""REST over plain HTTP/1.1 for methods whose messages are bytes anyway (docs/adr/0008): the handlers of the registry, called without gRPC's
framing and Envoy's transcoding, which cost more than all the rest of a cached answer.

A method is served here when its `google.api.http` option says POST with a body that is a google.api.HttpBody and it answers with a stream
of HttpBody. Handlers do not notice: headers are metadata both ways, and an abort becomes the OpenAI error that it carries.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from aiohttp import web
from google.api import annotations_pb2, httpbody_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.runtime.calls import Aborted, CallContext, MetadataLike
from services.runtime.errors import STATUS_DETAILS_KEY, GatewayError
from services.runtime.registry import Handler, Registry
from services.runtime.settings import host_and_port
from services.runtime.tracing import Tracing

MAX_BODY_BYTES = 32 * 1024 * 1024
# What Envoy lets through.
MAX_HEADER_BYTES = 64 * 1024
# Envoy, which keeps idle connections for a minute, is always the one to close: otherwise a request could meet a closing connection.
KEEP_ALIVE_S = 3600.0
# What was cut off has so long to end.
ENDING_S = 1.0
HEALTH_PATH = "/healthz"
EVENT_STREAM = "text/event-stream"
# What an error says for Envoy's transcoding, as envoy/errors.lua knows it.
_FOR_ENVOY = frozenset({STATUS_DETAILS_KEY, "x-openai-error", "x-http-status"})
_BODY = httpbody_pb2.HttpBody.DESCRIPTOR


@dataclass(frozen=True, slots=True)
class Route:
    """A method behind a path."""

    method: str
    handler: Handler
    message: type[Message]
    body_field: str


def routes(registry: Registry) -> dict[str, Route]:
    """The methods that can be served, by their REST path."""
    found = {}
    for name in registry.services:
        for method in descriptor_pool.Default().FindServiceByName(name).methods:
            rule = method.GetOptions().Extensions[annotations_pb2.http]
            field = method.input_type.fields_by_name.get(rule.body)
            takes_bytes = rule.post and field is not None and field.message_type is _BODY
            if takes_bytes and method.output_type is _BODY and method.server_streaming:
                path = f"/{name}/{method.name}"
                found[rule.post] = Route(path[1:], registry.handler(path), message_factory.GetMessageClass(method.input_type), rule.body)
    return found


class HttpContext(CallContext):
    """What a handler sees of a request that came by HTTP. Keeps what the handler says beside its messages."""

    def __init__(self, metadata: MetadataLike) -> None:
        super().__init__(metadata, None, asyncio.get_running_loop())
        self.headers: list[tuple[str, str]] = []
        # What the handler said as it gave up: the trailing metadata of a gRPC error.
        self.trailing: dict[str, str] = {}

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        self.headers = list(initial_metadata)

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        self.set_trailing_metadata(trailing_metadata)
        raise Aborted

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self.trailing.update(trailing_metadata)


class HttpFace:
    """Answers requests. Handlers must stand behind the guard of interceptors.py: an abort is expected to say its HTTP status and body."""

    def __init__(self, routes: Mapping[str, Route], tracing: Tracing) -> None:
        self._routes = routes
        self._tracing = tracing
        # Told to whoever asks for health.
        self.is_draining = False
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def has_routes(self) -> bool:
        """Whether there is anything to answer."""
        return bool(self._routes)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The response; what has begun as a stream is written as it comes."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await self._answer(request)
        finally:
            self._running.discard(task)

    def cut_off(self) -> None:
        """Ends what is still being answered, as if the clients had left."""
        for task in self._running:
            task.cancel()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        route = self._routes.get(request.path)
        if route is None or request.method != "POST":
            return self._otherwise(request)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            too_large = GatewayError(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE, "The request body is larger than 32 MiB.")
            return _error(too_large.http_status, too_large.openai_body())
        metadata = [(name.lower(), value if value.isascii() else _text(value)) for name, value in request.headers.items()]
        context = HttpContext(metadata)
        message = route.message()
        given = getattr(message, route.body_field)
        given.content_type, given.data = request.content_type, body
        with self._tracing.server_span(route.method, metadata):
            return await _relay(route.handler.unary_stream(message, context), context, request)

    def _otherwise(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == HEALTH_PATH:
            return web.Response(status=503 if self.is_draining else 200)
        missing = GatewayError(ErrorReason.ERROR_REASON_NOT_FOUND, "There is nothing at this path.")
        return _error(missing.http_status, missing.openai_body())


def _text(value: str) -> str:
    """A header's value. What is no UTF-8 is Latin-1, for a text with lone surrogates, as aiohttp reads it, could be put into no message."""
    sent = value.encode(errors="surrogateescape")
    try:
        return sent.decode()
    except UnicodeDecodeError:
        return sent.decode("latin-1")


async def _relay(bodies: Any, context: HttpContext, request: web.BaseRequest) -> web.StreamResponse:
    """Writes what the handler gives: at once when it is a stream of events, else as one body with its length."""
    stream: web.StreamResponse | None = None
    pieces: list[httpbody_pb2.HttpBody] = []
    try:
        async for body in bodies:
            if stream is None and body.content_type.startswith(EVENT_STREAM):
                stream = web.StreamResponse(headers=[*context.headers, ("content-type", body.content_type)])
                await stream.prepare(request)
            if stream is None:
                pieces.append(body)
            else:
                await stream.write(body.data)
    except Aborted:
        if stream is None:
            return _aborted(context)
        # Half an answer must not look like a whole one.
        request.transport.abort()  # type: ignore[union-attr]
        return stream
    finally:
        await bodies.aclose()
    if stream is not None:
        await stream.write_eof()
        return stream
    headers = [*context.headers, ("content-type", pieces[0].content_type if pieces else "application/json")]
    return web.Response(body=b"".join(piece.data for piece in pieces), headers=headers)


def _aborted(context: HttpContext) -> web.Response:
    trailing = context.trailing
    headers = [(name, value) for name, value in trailing.items() if name not in _FOR_ENVOY]
    return _error(int(trailing["x-http-status"]), trailing["x-openai-error"].encode("ascii"), headers)


def _error(status: int, document: bytes, headers: Sequence[tuple[str, str]] = ()) -> web.Response:
    return web.Response(status=status, body=document, headers=[*headers, ("content-type", "application/json")])


@asynccontextmanager
async def serve(face: HttpFace, address: str | None, drain_s: float) -> AsyncIterator[None]:
    """Listens on `host:port` or `unix:path` while entered; leaving waits for running answers, for at most `drain_s`. None: no listener."""
    if address is None:
        yield
        return
    server = web.Server(
        face.answer,
        request_factory=_bounded,
        access_log=None,
        # A client that leaves ends its answer, wherever that is.
        handler_cancellation=True,
        keepalive_timeout=KEEP_ALIVE_S,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        # A body is taken as it came: a small one that unpacks to gigabytes is nobody's request.
        auto_decompress=False,
    )
    async with AsyncExitStack() as stack:
        runner = web.ServerRunner(server, shutdown_timeout=drain_s + ENDING_S)
        await runner.setup()
        stack.push_async_callback(_leave, runner, face, drain_s)
        site = web.UnixSite(runner, address[5:]) if address.startswith("unix:") else web.TCPSite(runner, *host_and_port(address))
        await site.start()
        yield


async def _leave(runner: web.ServerRunner, face: HttpFace, drain_s: float) -> None:
    # The runner alone would wait twice for its time before it cancels: `up` kills sooner.
    cut = asyncio.get_running_loop().call_later(drain_s, face.cut_off)
    try:
        await runner.cleanup()
    finally:
        cut.cancel()


def _bounded(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=MAX_BODY_BYTES)
