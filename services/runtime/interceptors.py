"""What stands around every handler: errors become statuses, calls are counted, public calls leave one access line.

It is put around handlers where they are registered, not into a server, so that calls over gRPC, over sessions and in process all pass it.
"""

import asyncio
import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, NoReturn

import grpc

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.runtime import logs, metrics
from services.runtime.errors import STATUS_DETAILS_KEY, GatewayError
from services.runtime.registry import Handler

log = logs.get(__name__)
Context = grpc.aio.ServicerContext[Any, Any]
_PUBLIC = ("/joulegate.openai.", "/joulegate.chat.", "/joulegate.ops.", "/joulegate.router.", "/joulegate.ledger.v1.AdminService/")
# The id of the running public call: as Envoy made it or the client sent it, or a new one where that is not fit to be a key in the books.
request_id: Final[ContextVar[str]] = ContextVar("request_id")
_FIT = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def guard(path: str, handler: Handler) -> Handler:
    """The handler with everything around it. Handlers of grpc's own packages (health, reflection) are left as they are."""
    if not path.startswith("/joulegate."):
        return handler
    watch = _Watch(path)
    if handler.unary_unary is not None:
        return handler._replace(unary_unary=_guarded_unary(handler.unary_unary, watch))
    if handler.unary_stream is not None:
        return handler._replace(unary_stream=_guarded_stream(handler.unary_stream, watch))
    if handler.stream_stream is not None:
        return handler._replace(stream_stream=_guarded_stream(handler.stream_stream, watch))
    raise TypeError(f"{path}: client streaming is not used in this mesh")


class _Watch:
    """Counts and logs the calls of one method."""

    def __init__(self, path: str) -> None:
        self._method = path[1:]
        self._is_public = path.startswith(_PUBLIC)
        # Calls inside the mesh are too many and too short for a histogram each; their services measure what matters.
        self._seconds = metrics.CALL_SECONDS.labels(self._method) if self._is_public else None
        self._calls: dict[str, Any] = {}

    def started(self, context: Context) -> float:
        if self._is_public:
            given = metadata_value(context, "x-request-id") or ""
            request_id.set(given if _FIT.fullmatch(given) else str(uuid.uuid4()))
        return time.monotonic()

    def ended(self, started: float, error: GatewayError | None) -> None:
        code = "OK" if error is None else error.shape.grpc_code.name
        counter = self._calls.get(code)
        if counter is None:
            counter = self._calls[code] = metrics.CALLS.labels(self._method, code)
        counter.inc()
        elapsed = time.monotonic() - started
        if self._seconds is not None:
            self._seconds.observe(elapsed)
        if self._is_public or (error is not None and error.reason == ErrorReason.ERROR_REASON_INTERNAL):
            log.info(
                "call",
                method=self._method,
                code=code,
                reason=None if error is None else ErrorReason.Name(error.reason),
                request_id=request_id.get(None),
                seconds=round(elapsed, 6),
            )


def metadata_value(context: Context, key: str) -> str | None:
    """The first text value of an invocation metadata key."""
    for name, value in context.invocation_metadata() or ():
        if name == key:
            return value if isinstance(value, str) else value.decode("latin-1")
    return None


def _guarded_unary(behaviour: Callable[[Any, Any], Awaitable[Any]], watch: _Watch) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        started, error = watch.started(context), None
        try:
            return await behaviour(request, context)
        except BaseException as raised:
            error = _reason_of(raised)
            if isinstance(raised, Exception):
                await abort(context, error)
            raise
        finally:
            watch.ended(started, error)

    return call


def _guarded_stream(behaviour: Callable[[Any, Any], AsyncIterator[Any]], watch: _Watch) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        started, error = watch.started(context), None
        responses = behaviour(request, context)
        try:
            async for response in responses:
                yield response
        except BaseException as raised:
            error = _reason_of(raised)
            if isinstance(raised, Exception):
                await abort(context, error)
            raise
        finally:
            # A caller that leaves closes this generator; its inner one must not wait for the garbage collector.
            await responses.aclose()  # type: ignore[attr-defined]
            watch.ended(started, error)

    return call


def _reason_of(raised: BaseException) -> GatewayError:
    """The only place where an unforeseen exception is caught and named."""
    if isinstance(raised, GatewayError):
        return raised
    if isinstance(raised, grpc.aio.AioRpcError):
        return GatewayError.from_rpc(raised)
    if isinstance(raised, asyncio.CancelledError | GeneratorExit):
        return GatewayError(ErrorReason.ERROR_REASON_CANCELLED, "the caller left")
    log.error("unforeseen_exception", exc_info=raised)
    return GatewayError(ErrorReason.ERROR_REASON_INTERNAL, "internal error")


async def abort(context: Context, error: GatewayError) -> NoReturn:
    """Ends the call with the error, as gRPC status and, in trailing metadata, as the OpenAI error that Envoy makes the body of."""
    trailing: list[tuple[str, str | bytes]] = [
        (STATUS_DETAILS_KEY, error.to_status().SerializeToString()),
        ("x-openai-error", error.openai_body().decode("ascii")),
        ("x-http-status", str(error.http_status)),
    ]
    if error.retry_after_s is not None:
        # Whole seconds are all that HTTP knows; the other is what OpenAI's clients read first.
        wait_s = max(0.0, error.retry_after_s)
        trailing += [("retry-after", str(math.ceil(wait_s))), ("retry-after-ms", str(math.ceil(wait_s * 1000)))]
    trailing += error.headers
    await context.abort(error.shape.grpc_code, error.message, trailing_metadata=tuple(trailing))
