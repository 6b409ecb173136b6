"""A scripted provider of any dialect: real HTTP on loopback, every fault a provider can have.

    async with OpenAIUpstream() as upstream:
        upstream.script(completion("Hello"), error(429, "slow down", {"retry-after": "1"}))
        ...  # two POSTs to f"{upstream.base_url}/chat/completions"
        assert upstream.calls[0].json["model"] == "small"

Scripted answers are served in the order of arrival. A call without one gets a 500 and fails the test at the end, as do answers that nobody
fetched. Lists of models are served beside the script: `models` is the list, None for a 404. What the answers say is each dialect's module.
"""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiohttp import web


class Fault(Enum):
    """What can happen between the bytes of an answer."""

    HANG = auto()  # nothing more, until the client leaves
    RESET = auto()  # the connection is reset
    CLOSE = auto()  # the connection is closed without the end of the body


Step = bytes | asyncio.Event | Fault


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer. Steps are taken in order: bytes are sent at once, an event is waited for."""

    steps: Sequence[Step] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    # Steps before the headers; bytes have no place there.
    before: Sequence[asyncio.Event | Fault] = ()


class StreamParts(NamedTuple):
    """A streamed answer, cut where faults may happen: before the first token, each token, and all that ends it."""

    opening: bytes
    pieces: list[bytes]
    ending: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Call:
    """What arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    # Monotonic seconds.
    arrived_at: float
    # Set when the client's connection is gone.
    disconnected: asyncio.Event

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Upstream:
    """The provider. `always` answers whatever the script does not, for load and for runs of unknown length.

    A dialect says how its list of models looks.
    """

    # Where the dialect's API begins.
    prefix = ""

    def __init__(self, models: Sequence[str] | None = ("small", "large")) -> None:
        self.models = models
        self.calls: list[Call] = []
        self.listings: list[Call] = []
        self.unscripted: list[Call] = []
        self.always: Callable[[Call], Reply] | None = None
        self._script: deque[Reply] = deque()
        self._arrival = asyncio.Condition()
        self._connections: dict[web.RequestHandler, asyncio.Event] = {}
        self.base_url = ""

    def script(self, *replies: Reply) -> None:
        self._script.extend(replies)

    async def arrived(self, count: int = 1) -> Call:
        """Waits until so many chat calls have arrived; gives the last of them."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: len(self.calls) >= count)
        return self.calls[count - 1]

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    async def __aenter__(self) -> Self:
        server = _Server(self._handle, self._connections)
        self._runner = web.ServerRunner(server, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.base_url = f"http://127.0.0.1:{port}{self.prefix}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()
        if raised is None:
            self.check()

    def check(self) -> None:
        """Fails when the script and the calls did not meet."""
        assert not self._script, f"{len(self._script)} scripted answers were not fetched"
        assert not self.unscripted, f"{len(self.unscripted)} calls had no scripted answer"

    def forget(self) -> None:
        """Back to an empty script and an empty record."""
        self._script.clear()
        self.calls.clear()
        self.unscripted.clear()
        self.always = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        disconnected = self._connections[request.protocol]
        call = Call(request.method, request.path_qs, dict(request.headers), await request.read(), time.monotonic(), disconnected)
        if request.method == "GET":
            self.listings.append(call)
            return self._list_models()
        async with self._arrival:
            self.calls.append(call)
            reply = self._reply(call)
            self._arrival.notify_all()
        return await _perform(reply, request, disconnected)

    def _reply(self, call: Call) -> Reply:
        if self._script:
            return self._script.popleft()
        if self.always is not None:
            return self.always(call)
        self.unscripted.append(call)
        return answer("this call was not scripted", status=500, content_type="text/plain")

    def _list_models(self) -> web.Response:
        if self.models is None:
            return web.json_response({"error": {"message": "no such path"}}, status=404)
        return web.json_response(self.listing(self.models))

    def listing(self, models: Sequence[str]) -> Any:
        """The list of models, as JSON, in the dialect."""
        raise NotImplementedError


class _Server(web.Server):
    """Knows which connections are open."""

    def __init__(self, handler: Any, connections: dict[web.RequestHandler, asyncio.Event]) -> None:
        super().__init__(handler)
        self._open = connections

    def _make_request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=64 << 20)

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        self._open[handler] = asyncio.Event()
        super().connection_made(handler, transport)

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        self._open.pop(handler).set()
        super().connection_lost(handler, exc)


async def _perform(reply: Reply, request: web.BaseRequest, disconnected: asyncio.Event) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    with contextlib.suppress(ConnectionError):
        for fault in reply.before:
            if not await _take(fault, request, disconnected):
                return response
        await response.prepare(request)
        for step in reply.steps:
            if isinstance(step, bytes):
                await response.write(step)
            elif not await _take(step, request, disconnected):
                return response
        await response.write_eof()
    return response


async def _take(step: asyncio.Event | Fault, request: web.BaseRequest, disconnected: asyncio.Event) -> bool:
    """Whether the answer goes on."""
    if isinstance(step, asyncio.Event):
        waits = [asyncio.ensure_future(event.wait()) for event in (step, disconnected)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return not disconnected.is_set()
    transport = request.transport
    if step is Fault.HANG:
        await disconnected.wait()
    elif transport is not None:
        if step is Fault.RESET:
            # Linger of zero seconds: what is unsent is dropped, and the peer gets a RST.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
    return False


def answer(
    body: bytes | str, *, status: int = 200, content_type: str = "application/json", headers: Mapping[str, str] | None = None
) -> Reply:
    """A whole answer of any kind."""
    data = body.encode() if isinstance(body, str) else body
    head = {"content-type": content_type, "content-length": str(len(data)), **(headers or {})}
    return Reply([data] if data else [], status, head)


def sse(*steps: Step) -> Reply:
    """A stream of any content."""
    return Reply(steps, headers={"content-type": "text/event-stream; charset=utf-8"})


def hang() -> Reply:
    """Never answers."""
    return Reply(before=[Fault.HANG])


def reset() -> Reply:
    """Resets the connection instead of answering."""
    return Reply(before=[Fault.RESET])
