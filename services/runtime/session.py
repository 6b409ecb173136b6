"""Many calls on one stream: a channel under the generated stubs, and the servicer that answers it.

A unary call costs about 0.34 ms of CPU in Python's gRPC, mostly its own start and end; a message on a live stream costs a tenth, and one
message may hold frames of many calls. So each pair of processes keeps one bidirectional stream open. Frames are written at once while
there are few calls; with many a writer waits a few milliseconds between messages, and what gathers meanwhile travels together.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc.aio import EOF

from joulegate.session.v1 import session_service_pb2 as pb
from joulegate.session.v1 import session_service_pb2_grpc as pb_grpc
from services.runtime import logs
from services.runtime.calls import CallContext, Credit, MetadataLike, StreamCall, UnaryCall, rpc_error
from services.runtime.errors import STATUS_DETAILS_KEY, status_code
from services.runtime.outbox import Outbox
from services.runtime.registry import Handler, Registry

log = logs.get(__name__)

WINDOW = 64
RECONNECT_S = (0.05, 1.0)
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class SessionChannel(grpc.aio.Channel):
    """Carries unary and server-streaming calls over one stream of `channel`; bidirectional ones go over `channel` itself.

    Connects by itself and again after a break. Calls on a session that breaks fail with UNAVAILABLE, and so do new ones at once
    while the other side cannot be reached.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub = pb_grpc.SessionServiceStub(channel)
        self._calls: dict[int, _Outgoing] = {}
        self._next_id = 1
        self._outbox: Outbox[pb.CallFrame] | None = None
        self._settled = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep_connected())

    def unary_unary(self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any) -> Any:
        def call(request: Any, *, timeout: float | None = None, metadata: MetadataLike | None = None, **_: Any) -> UnaryCall:
            call_id = self._new_id()
            call = UnaryCall(lambda: self._cancel(call_id))
            frame = _beginning(call_id, method, request_serializer(request), timeout, metadata)
            self._open(_Outgoing(call, response_deserializer, timeout), frame)
            return call

        return call

    def unary_stream(self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any) -> Any:
        def call(request: Any, *, timeout: float | None = None, metadata: MetadataLike | None = None, **_: Any) -> StreamCall:
            call_id = self._new_id()
            call = StreamCall(lambda: self._cancel(call_id), WINDOW, lambda count: self._grant(call_id, count))
            frame = _beginning(call_id, method, request_serializer(request), timeout, metadata)
            self._open(_Outgoing(call, response_deserializer, timeout), frame)
            return call

        return call

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._channel.stream_stream(method, *args, **kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._channel.stream_unary(method, *args, **kwargs)

    def _new_id(self) -> int:
        call_id, self._next_id = self._next_id, self._next_id + 1
        return call_id

    def _open(self, outgoing: "_Outgoing", frame: pb.CallFrame) -> None:
        call_id = frame.call_id
        self._calls[call_id] = outgoing
        if outgoing.timeout is not None:
            outgoing.timer = asyncio.get_running_loop().call_later(outgoing.timeout, self._expire, call_id)
        if self._outbox is not None:
            self._outbox.put(frame)
        elif self._settled.is_set():
            self._end(call_id, rpc_error(UNAVAILABLE, "the peer cannot be reached"))
        else:
            outgoing.waiting = frame

    def _cancel(self, call_id: int) -> None:
        outgoing = self._calls.get(call_id)
        if outgoing is None:
            return
        if self._outbox is None or outgoing.waiting is not None:
            self._end(call_id, None)
            return
        self._outbox.put(pb.CallFrame(call_id=call_id, cancel=True))
        if isinstance(outgoing.call, StreamCall):
            # Stays until the other side says that it has ended: messages may be on their way, and somebody may want them.
            outgoing.stop_timer()
        else:
            self._forget(call_id)

    def _expire(self, call_id: int) -> None:
        outgoing = self._calls.get(call_id)
        if outgoing is not None:
            self._cancel(call_id)
            outgoing.call.end(rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _grant(self, call_id: int, count: int) -> None:
        if call_id in self._calls and self._outbox is not None:
            self._outbox.put(pb.CallFrame(call_id=call_id, credit_count=count))

    def _forget(self, call_id: int) -> "_Outgoing | None":
        outgoing = self._calls.pop(call_id, None)
        if outgoing is not None:
            outgoing.stop_timer()
        return outgoing

    def _end(self, call_id: int, error: grpc.aio.AioRpcError | None) -> None:
        outgoing = self._forget(call_id)
        if outgoing is not None:
            outgoing.call.end(error)

    async def _keep_connected(self) -> None:
        delay = RECONNECT_S[0]
        while True:
            was_connected = await self._converse()
            delay = RECONNECT_S[0] if was_connected else min(delay * 2, RECONNECT_S[1])
            if not was_connected:
                # Whoever waits for a first connection learns that there is none yet; a later one is found without being asked.
                self._settled.set()
                self._fail_all("the peer cannot be reached")
                await asyncio.sleep(delay)

    async def _converse(self) -> bool:
        """One session from connect to break; says whether it ever stood."""
        stream: Any = self._stub.Connect()
        stood = False
        writer = None
        try:
            await stream.wait_for_connection()
            # The first message down says that a servicer, not only a socket, is there.
            if await stream.read() is EOF:
                return False
            stood, outbox = True, Outbox[pb.CallFrame](lambda: len(self._calls))
            self._outbox = outbox
            self._settled.clear()
            for outgoing in self._calls.values():
                if outgoing.waiting is not None:
                    outbox.put(outgoing.waiting)
                    outgoing.waiting = None
            writer = asyncio.create_task(self._write(stream, outbox))
            while (response := await stream.read()) is not EOF:
                for frame in response.frames:
                    self._receive(frame)
        except grpc.aio.AioRpcError:
            pass
        finally:
            self._outbox = None
            stream.cancel()
            if writer is not None:
                writer.cancel()
            if stood:
                self._fail_all("the session broke")
        return stood

    @staticmethod
    async def _write(stream: Any, outbox: Outbox[pb.CallFrame]) -> None:
        try:
            while True:
                await stream.write(pb.ConnectRequest(frames=await outbox.batch()))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The reader sees the same break and ends the session.
            stream.cancel()

    def _receive(self, frame: pb.ReplyFrame) -> None:
        # An answer to a call that was cancelled meanwhile finds nobody: that is normal.
        outgoing = self._calls.get(frame.call_id)
        if outgoing is None:
            return
        for message in frame.messages:
            outgoing.call.receive(outgoing.deserialize(message))
        if frame.HasField("end"):
            end = frame.end
            self._end(frame.call_id, rpc_error(status_code(end.code), end.message, end.status) if end.code else None)

    def _fail_all(self, details: str) -> None:
        for call_id in list(self._calls):
            self._end(call_id, rpc_error(UNAVAILABLE, details))

    async def close(self, grace: float | None = None) -> None:
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        self._fail_all("the channel is closed")
        await self._channel.close(grace)

    async def __aenter__(self) -> "SessionChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()


class _Outgoing:
    """A call that this side waits for."""

    __slots__ = ("call", "deserialize", "timeout", "timer", "waiting")

    def __init__(self, call: UnaryCall | StreamCall, deserialize: Any, timeout: float | None) -> None:
        self.call = call
        self.deserialize = deserialize
        self.timeout = timeout
        self.timer: asyncio.TimerHandle | None = None
        self.waiting: pb.CallFrame | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


def _beginning(call_id: int, method: str, request: bytes, timeout: float | None, metadata: MetadataLike | None) -> pb.CallFrame:
    frame = pb.CallFrame(call_id=call_id)
    begin = frame.begin
    begin.method, begin.request = method, request
    if timeout is not None:
        begin.timeout_microseconds = max(1, round(timeout * 1e6))
    for key, value in metadata or ():
        begin.metadata.add(key=key, value=value if isinstance(value, str) else value.decode("latin-1"))
    return frame


class SessionServicer(pb_grpc.SessionServiceServicer):
    """Runs the calls of sessions on the handlers of a registry. While draining, running calls finish and new ones are refused."""

    def __init__(self, registry: Registry, draining: asyncio.Event) -> None:
        self._registry = registry
        self._draining = draining

    async def Connect(self, request: Any, context: Any) -> AsyncIterator[pb.ConnectResponse]:
        session = _Session(self._registry, self._draining)
        listener = asyncio.create_task(session.listen(request))
        drainer = asyncio.create_task(session.end_when_drained())
        try:
            yield pb.ConnectResponse()
            while frames := await session.outbox.batch():
                yield pb.ConnectResponse(frames=frames)
        finally:
            listener.cancel()
            drainer.cancel()
            session.cancel_all()


class _Session:
    """The server's side of one stream."""

    def __init__(self, registry: Registry, draining: asyncio.Event) -> None:
        self.outbox = Outbox[pb.ReplyFrame](lambda: len(self._tasks))
        self._registry = registry
        self._draining = draining
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[bytes | None]] = {}
        self._credits: dict[int, Credit] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    async def listen(self, requests: AsyncIterator[pb.ConnectRequest]) -> None:
        try:
            async for request in requests:
                for frame in request.frames:
                    self._receive(frame)
        finally:
            # The client is gone, and with it whoever waited for its calls.
            self.cancel_all()
            self.outbox.close()

    async def end_when_drained(self) -> None:
        await self._draining.wait()
        await self._idle.wait()
        self.outbox.close()

    def cancel_all(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()

    def _receive(self, frame: pb.CallFrame) -> None:
        call_id = frame.call_id
        if frame.HasField("begin"):
            self._begin(call_id, frame.begin)
        elif frame.cancel:
            if (task := self._tasks.get(call_id)) is not None:
                task.cancel()
        elif (credit := self._credits.get(call_id)) is not None:
            credit.add(frame.credit_count)

    def _begin(self, call_id: int, begin: pb.Begin) -> None:
        handler = self._registry.handler(begin.method)
        if self._draining.is_set():
            self._end(call_id, rpc_error(UNAVAILABLE, "shutting down"))
        elif handler is None:
            self._end(call_id, rpc_error(grpc.StatusCode.UNIMPLEMENTED, f"unknown method {begin.method}"))
        else:
            timeout = begin.timeout_microseconds / 1e6 or None
            deadline = None if timeout is None else self._loop.time() + timeout
            context = CallContext([(entry.key, entry.value) for entry in begin.metadata], deadline, self._loop)
            task = self._loop.create_task(self._run(call_id, handler, begin.request, context))
            timer = context.limit(task)
            self._tasks[call_id] = task
            self._idle.clear()
            task.add_done_callback(lambda task: self._finish(call_id, task, timer, context))

    async def _run(self, call_id: int, handler: Handler, payload: bytes, context: CallContext) -> bytes | None:
        """Runs a call. Gives what is to be said with its end: the answer of a unary method."""
        request = handler.request_deserializer(payload)
        serialize, put = handler.response_serializer, self.outbox.put
        if handler.unary_unary is not None:
            answer: bytes = serialize(await handler.unary_unary(request, context))
            return answer
        credit = self._credits[call_id] = Credit(WINDOW)
        responses = handler.unary_stream(request, context)
        try:
            async for response in responses:
                await credit.take()
                put(pb.ReplyFrame(call_id=call_id, messages=(serialize(response),)))
        finally:
            await responses.aclose()
        return None

    def _finish(self, call_id: int, task: asyncio.Task[bytes | None], timer: asyncio.TimerHandle | None, context: CallContext) -> None:
        if timer is not None:
            timer.cancel()
        self._tasks.pop(call_id, None)
        self._credits.pop(call_id, None)
        failure = context.failure(asyncio.CancelledError() if task.cancelled() else task.exception())
        self._end(call_id, failure, None if failure is not None else task.result())
        if not self._tasks:
            self._idle.set()

    def _end(self, call_id: int, error: grpc.aio.AioRpcError | None, answer: bytes | None = None) -> None:
        frame = pb.ReplyFrame(call_id=call_id, messages=() if answer is None else (answer,))
        end = frame.end
        end.SetInParent()
        if error is not None:
            end.code, end.message = error.code().value[0], error.details() or ""
            for key, value in error.trailing_metadata():
                if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
                    end.status = value
        self.outbox.put(frame)
