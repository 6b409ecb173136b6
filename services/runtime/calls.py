"""Both ends of a call that does not travel as an RPC of its own: what a handler is given and what a stub returns.

local.py (same process) and session.py (many calls on one stream) share them; they behave as grpc.aio's own do in what this mesh uses:
awaiting a unary call, reading or iterating a stream, cancelling, deadlines, `AioRpcError` on failure.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import Any, NoReturn

import grpc
from grpc.aio import EOF, AioRpcError, Metadata

from services.runtime.errors import STATUS_DETAILS_KEY
from services.runtime.waiting import is_done_within

MetadataLike = Sequence[tuple[str, str | bytes]]
OK = grpc.StatusCode.OK


class Aborted(Exception):  # noqa: N818 - the end of a call, as `abort` demands, not a fault
    """Raised by `abort` to leave the handler."""


def rpc_error(code: grpc.StatusCode, details: str, status: bytes = b"") -> AioRpcError:
    """The error of a failed call; `status` is a serialized google.rpc.Status."""
    trailing = Metadata((STATUS_DETAILS_KEY, status)) if status else Metadata()
    return AioRpcError(code, Metadata(), trailing, details=details)


class CallContext(grpc.aio.ServicerContext[Any, Any]):
    """What a handler sees of its call. Carries the status that the handler ended with."""

    def __init__(self, metadata: MetadataLike, deadline: float | None, loop: asyncio.AbstractEventLoop) -> None:
        self._metadata = metadata
        self.deadline = deadline
        self._loop = loop
        self._code = OK
        self._details = ""
        self._is_late = False
        self.status = b""

    def limit(self, task: asyncio.Task[Any]) -> asyncio.TimerHandle | None:
        """Cancels the handler's task at the deadline, if there is one."""

        def expire() -> None:
            # uvloop fires a timer up to a millisecond before its own clock shows the time: comparing would say that the caller left.
            self._is_late = True
            task.cancel()

        return None if self.deadline is None else self._loop.call_at(self.deadline, expire)

    def invocation_metadata(self) -> Any:
        return self._metadata

    def time_remaining(self) -> Any:
        return None if self.deadline is None else max(0.0, self.deadline - self._loop.time())

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        self._code, self._details = code, details
        self.status = next((value for key, value in trailing_metadata if key == STATUS_DETAILS_KEY), b"")
        raise Aborted

    async def abort_with_status(self, status: Any) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def failure(self, raised: BaseException | None) -> AioRpcError | None:
        """The error that the caller gets when the handler ended by raising this; None for success."""
        if raised is None and self._code is OK:
            return None
        if isinstance(raised, asyncio.CancelledError):
            if self._is_late:
                return rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
            return rpc_error(grpc.StatusCode.CANCELLED, "the call was cancelled")
        if raised is None or isinstance(raised, Aborted):
            return rpc_error(self._code, self._details, self.status)
        return rpc_error(grpc.StatusCode.UNKNOWN, f"unexpected {type(raised).__name__}")

    def set_code(self, code: Any) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return self._details

    # Initial and trailing metadata are for the edge; calls inside the mesh carry what they have to say in messages.
    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        pass

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        pass

    def trailing_metadata(self) -> Any:
        return ()

    def peer(self) -> str:
        return "mesh"

    def peer_identities(self) -> Any:
        return None

    def peer_identity_key(self) -> Any:
        return None

    def auth_context(self) -> Any:
        return {}

    def set_compression(self, compression: Any) -> None:
        pass

    def disable_next_message_compression(self) -> None:
        pass

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return False

    def add_done_callback(self, callback: Any) -> None:
        raise NotImplementedError("use try/finally in the handler")

    async def read(self) -> Any:
        raise NotImplementedError("handlers iterate their requests")

    async def write(self, message: Any) -> None:
        raise NotImplementedError("handlers yield their responses")


class _Call(grpc.aio.Call):
    """The part that unary and streaming calls share: an end, and how to bring it about."""

    def __init__(self, on_cancel: Callable[[], object]) -> None:
        self._on_cancel = on_cancel
        self._ended: asyncio.Future[AioRpcError | None] = asyncio.get_running_loop().create_future()
        self._is_cancelled = False

    def end(self, error: AioRpcError | None) -> None:
        """Called by the channel, once."""
        if not self._ended.done():
            self._ended.set_result(error)

    def cancel(self) -> bool:
        if self._ended.done():
            return False
        self._is_cancelled = True
        self.end(rpc_error(grpc.StatusCode.CANCELLED, "Locally cancelled by application!"))
        self._on_cancel()
        return True

    def cancelled(self) -> bool:
        return self._is_cancelled

    def done(self) -> bool:
        return self._ended.done()

    def add_done_callback(self, callback: Any) -> None:
        self._ended.add_done_callback(lambda _: callback(self))

    def time_remaining(self) -> float | None:
        return None

    async def code(self) -> grpc.StatusCode:
        error = await asyncio.shield(self._ended)
        return OK if error is None else error.code()

    async def details(self) -> str:
        error = await asyncio.shield(self._ended)
        return "" if error is None else error.details() or ""

    async def initial_metadata(self) -> Metadata:
        return Metadata()

    async def trailing_metadata(self) -> Metadata:
        error = await asyncio.shield(self._ended)
        return Metadata() if error is None else error.trailing_metadata()

    async def wait_for_connection(self) -> None:
        pass

    def _raise_for(self, error: AioRpcError | None) -> None:
        if self._is_cancelled:
            raise asyncio.CancelledError
        if error is not None:
            raise error


class UnaryCall(_Call, grpc.aio.UnaryUnaryCall[Any, Any]):
    """Awaitable answer of a unary method."""

    def __init__(self, on_cancel: Callable[[], object]) -> None:
        super().__init__(on_cancel)
        self._response: Any = None

    def receive(self, message: Any) -> None:
        """Called by the channel, before `end`."""
        self._response = message

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            error = yield from self._ended
        except asyncio.CancelledError:
            # Cancelling the awaiting task cancelled the future itself: the call goes with it.
            self._is_cancelled = True
            self._on_cancel()
            raise
        self._raise_for(error)
        return self._response


class StreamCall(_Call, grpc.aio.UnaryStreamCall[Any, Any]):
    """Messages of a streaming method, in order, with room for `window` unread ones."""

    def __init__(self, on_cancel: Callable[[], object], window: int, on_credit: Callable[[int], None]) -> None:
        super().__init__(on_cancel)
        self._unread: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._batch = max(1, window // 2)
        self._consumed = 0
        self._on_credit = on_credit
        # The other side is done with the call, which a cancelled one is not at once.
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def receive(self, message: Any) -> None:
        """Called by the channel, before `end`."""
        self._unread.append(message)
        self._wake()

    def end(self, error: AioRpcError | None) -> None:
        super().end(error)
        if not self._over.done():
            self._over.set_result(None)
        self._wake()

    def cancel(self) -> bool:
        if self._ended.done():
            return False
        self._is_cancelled = True
        self._ended.set_result(rpc_error(grpc.StatusCode.CANCELLED, "Locally cancelled by application!"))
        self._wake()
        self._on_cancel()
        return True

    async def last_messages(self, timeout_s: float) -> Sequence[Any]:
        """Cancels, and gives what was unread or still on its way: what the other side sent before it heard of that, if it ends in time."""
        self.cancel()
        await is_done_within(self._over, timeout_s)
        messages = tuple(self._unread)
        self._unread.clear()
        return messages

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def read(self) -> Any:
        """The next message; EOF after the last. Raises AioRpcError when the call failed."""
        while not self._unread:
            if self._ended.done():
                self._raise_for(self._ended.result())
                return EOF
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            except asyncio.CancelledError:
                self.cancel()
                raise
        self._consumed += 1
        if self._consumed == self._batch:
            self._consumed = 0
            self._on_credit(self._batch)
        return self._unread.popleft()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not EOF:
            yield message


class Credit:
    """How many more messages a handler may send before its caller has taken some."""

    def __init__(self, window: int) -> None:
        self._left = window
        self._waiter: asyncio.Future[None] | None = None

    def add(self, count: int) -> None:
        self._left += count
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> None:
        while self._left <= 0:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._left -= 1
