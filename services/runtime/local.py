"""A channel to servicers in the same process: the same stubs and handlers, no sockets, no serialization, no copies.

Messages pass as they are, so nobody changes a message after sending or receiving it. A unary call is a coroutine: it begins when it is
awaited, and runs in the task of whoever does. A stream has a task of its own, since it goes on while nobody reads.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any

import grpc

from services.runtime.calls import CallContext, Credit, MetadataLike, StreamCall, rpc_error
from services.runtime.registry import Registry

WINDOW = 64
_DONE = object()


class LocalChannel(grpc.aio.Channel):
    """Calls the handlers of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def unary_unary(self, method: str, *_: Any, **__: Any) -> Any:
        def call(request: Any, *, timeout: float | None = None, metadata: MetadataLike | None = None, **_: Any) -> Coroutine[Any, Any, Any]:
            return _answer(self._registry, method, request, timeout, metadata or ())

        return call

    def unary_stream(self, method: str, *_: Any, **__: Any) -> Any:
        def call(request: Any, *, timeout: float | None = None, metadata: MetadataLike | None = None, **_: Any) -> StreamCall:
            return _start_stream(self._registry, method, request, timeout, metadata or ())

        return call

    def stream_stream(self, method: str, *_: Any, **__: Any) -> Any:
        def call(*, timeout: float | None = None, metadata: MetadataLike | None = None, **_: Any) -> "LocalBidiCall":
            return LocalBidiCall(self._registry, method, timeout, metadata or ())

        return call

    def stream_unary(self, method: str, *_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"{method}: client streaming is not used in this mesh")

    async def __aenter__(self) -> "LocalChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def close(self, grace: float | None = None) -> None:
        pass

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await asyncio.Event().wait()

    async def channel_ready(self) -> None:
        pass


def _context(timeout: float | None, metadata: MetadataLike) -> CallContext:
    loop = asyncio.get_running_loop()
    return CallContext(metadata, None if timeout is None else loop.time() + timeout, loop)


async def _answer(registry: Registry, method: str, request: Any, timeout: float | None, metadata: MetadataLike) -> Any:
    """What the handler gives. Raises AioRpcError as a call over a socket would."""
    handler, context = registry.handler(method), _context(timeout, metadata)
    if handler is None:
        raise rpc_error(grpc.StatusCode.UNIMPLEMENTED, f"unknown method {method}")
    work = handler.unary_unary(request, context)
    try:
        try:
            waits_for = work.send(None)
        except StopIteration as end:
            # Most do: a timer would cost more than all the rest of the call.
            answer = end.value
        else:
            async with asyncio.timeout_at(context.deadline):
                answer = await _Begun(work, waits_for)
    except TimeoutError:
        raise rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from None
    except asyncio.CancelledError as raised:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Not this task, but one that the handler waited for.
        raise context.failure(raised) from None  # type: ignore[misc]
    except Exception as raised:
        raise context.failure(raised) from None  # type: ignore[misc]
    if (failure := context.failure(None)) is not None:
        raise failure
    return answer


class _Begun:
    """A coroutine that was run up to where it waits for the first time, to be awaited from there."""

    __slots__ = ("_waits_for", "_work")

    def __init__(self, work: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._work = work
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        go_on: Any
        waits_for = self._waits_for
        while True:
            try:
                given = yield waits_for
                go_on = self._work.send
            except BaseException as thrown:
                given, go_on = thrown, self._work.throw
            try:
                waits_for = go_on(given)
            except StopIteration as end:
                return end.value


async def _pump(handler: Any, behaviour: Any, request: Any, method: str, context: CallContext, call: StreamCall, credit: Credit) -> None:
    if handler is None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"unknown method {method}")
    responses = behaviour(request, context)
    try:
        async for response in responses:
            await credit.take()
            call.receive(response)
    finally:
        await responses.aclose()


def _spawn(call: StreamCall, work: Any, context: CallContext) -> asyncio.Task[None]:
    """Runs the handler as a task of its own; its end, however it comes, is the end of the call."""
    task = asyncio.get_running_loop().create_task(work)
    timer = context.limit(task)

    def ended(task: asyncio.Task[None]) -> None:
        if timer is not None:
            timer.cancel()
        call.end(context.failure(asyncio.CancelledError() if task.cancelled() else task.exception()))

    task.add_done_callback(ended)
    return task


def _start_stream(registry: Registry, method: str, request: Any, timeout: float | None, metadata: MetadataLike) -> StreamCall:
    handler, context, credit = registry.handler(method), _context(timeout, metadata), Credit(WINDOW)
    call = StreamCall(lambda: task.cancel(), WINDOW, credit.add)
    behaviour = None if handler is None else handler.unary_stream
    task = _spawn(call, _pump(handler, behaviour, request, method, context, call, credit), context)
    return call


class LocalBidiCall(StreamCall):
    """A bidirectional call; `write` never waits, since the handler is as near as can be."""

    def __init__(self, registry: Registry, method: str, timeout: float | None, metadata: MetadataLike) -> None:
        credit = Credit(WINDOW)
        super().__init__(lambda: self._task.cancel(), WINDOW, credit.add)
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        handler, context = registry.handler(method), _context(timeout, metadata)
        behaviour = None if handler is None else handler.stream_stream
        self._task = _spawn(self, _pump(handler, behaviour, self._incoming(), method, context, self, credit), context)

    async def _incoming(self) -> AsyncIterator[Any]:
        while (request := await self._requests.get()) is not _DONE:
            yield request

    async def write(self, request: Any) -> None:
        if self.done():
            error = self._ended.result()
            raise error if error is not None else rpc_error(grpc.StatusCode.UNAVAILABLE, "the call has ended")
        self._requests.put_nowait(request)

    async def done_writing(self) -> None:
        self._requests.put_nowait(_DONE)
