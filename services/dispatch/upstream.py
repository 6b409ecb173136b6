"""Calls to providers over HTTP: one pool for all of them, httpx's types over aiohttp's sockets.

httpx's own pool costs milliseconds per request at many connections, and its client has cookies and redirects that a gateway must not have;
so requests go straight to the transport. What arrives is decoded as it arrives.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError
from httpx_aiohttp import AiohttpTransport

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.adapters.base import Adapter, StreamDecoder
from services.dispatch.backend import Batch
from services.dispatch.failure import Failure, Kind
from services.dispatch.retry import retry_after_s
from services.dispatch.secret import Secret
from services.dispatch.timeouts import Timeouts
from services.dispatch.watchdog import Watchdog
from services.runtime.clock import Clock

MAX_ERROR_BYTES = 64 * 1024
MAX_LISTING_BYTES = 16 * 1024 * 1024
KEEP_ALIVE_S = 60.0
# How long the end of a body that is complete already may take, so that its connection can be used again.
DRAIN_S = 0.1
# aiohttp writes a body in one piece, and warns above 1 MiB that this holds up the loop.
PIECE_BYTES = 256 * 1024

_TRANSPORT_ERRORS = (httpx.HTTPError, aiohttp.ClientError, HttpProcessingError, OSError)


@asynccontextmanager
async def pool() -> AsyncIterator[httpx.AsyncBaseTransport]:
    """The connections to all providers. Unbounded: whoever admits requests bounds them."""
    # Proxies, netrc and cookies of the machine's user are not the gateway's.
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=httpx.create_ssl_context(trust_env=False), keepalive_timeout=KEEP_ALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("accept", "accept-encoding", "content-type"),
        trust_env=False,
    )
    async with AiohttpTransport(client=session, trust_env=False) as transport:
        yield transport


class HttpBackend:
    """A provider at an address, in a dialect."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport, adapter: Adapter, base_url: str, secret: Secret | None, timeouts: Timeouts, clock: Clock
    ) -> None:
        self.transport = transport
        self.adapter = adapter
        self.secret = secret
        self.timeouts = timeouts
        self.clock = clock
        self.extensions = {"timeout": {"connect": timeouts.connect_s, "pool": timeouts.connect_s}}
        self._base_url = base_url
        self._urls: dict[str, httpx.URL] = {}
        self._headers = {"user-agent": "joulegate", "accept-encoding": "identity"} | dict(
            {} if secret is None else adapter.authorization(secret.reveal())
        )

    def call(self, request: chat_pb2.ChatRequest, model: str, headers: Mapping[str, str]) -> "HttpAnswer":
        # What cannot stand in a header must not break the call: it is only the trace.
        sendable = {name: value for name, value in headers.items() if value.isascii() and value.isprintable()}
        return HttpAnswer(self, request, model, sendable)

    async def list_models(self) -> Sequence[pb.Model]:
        exchange = Exchange(
            self, self.request("GET", self.adapter.models_path, {"accept": "application/json"}, None), self.timeouts.total_s
        )
        try:
            await exchange.open(self.timeouts.first_byte_s)
            body = await exchange.read_all(self.timeouts.idle_s, MAX_LISTING_BYTES)
            return self.adapter.decode_models(body)
        except Failure as failure:
            raise failure.presentable(self.secret) from None
        finally:
            await exchange.close()

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> httpx.Request:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = httpx.URL(self._base_url + path)
        sent = {**self._headers, **headers}
        if body is None or len(body) <= PIECE_BYTES:
            return httpx.Request(method, url, headers=sent, content=body, extensions=self.extensions)
        sent["content-length"] = str(len(body))
        return httpx.Request(method, url, headers=sent, stream=_Pieces(body), extensions=self.extensions)


class _Pieces(httpx.AsyncByteStream):
    """A large body, such as one with images, that lets others have the loop in between."""

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), PIECE_BYTES):
            yield bytes(self._body[start : start + PIECE_BYTES])


class Exchange:
    """One HTTP request and the body of its answer, within deadlines. Every fault is a Failure."""

    def __init__(self, backend: HttpBackend, request: httpx.Request, total_s: float) -> None:
        self._backend = backend
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._watchdog = Watchdog()
        self._end_at = self._loop.time() + total_s
        self._response: httpx.Response | None = None
        self._body: AsyncIterator[bytes] | None = None
        self._has_bytes = False

    async def open(self, within_s: float) -> httpx.Response:
        """Sends the request. Raises Failure unless the status is one of success, with what the error's body says."""
        try:
            with self._watchdog.until(self._deadline(within_s)):
                response = await self._backend.transport.handle_async_request(self._request)
        except TimeoutError:
            raise self._late("did not answer in time") from None
        except _TRANSPORT_ERRORS as error:
            raise self._broken(error) from None
        self._response = response
        # Almost nobody compresses against our wish; then httpx undoes it.
        self._body = response.aiter_bytes() if "content-encoding" in response.headers else aiter(response.stream)  # type: ignore[arg-type]
        if not response.is_success:
            body = await self.read_all(within_s, MAX_ERROR_BYTES, is_prefix_enough=True)
            failure = self._backend.adapter.decode_error(response.status_code, body)
            raise failure.presentable(self._backend.secret, retry_after_s(response.headers, self._backend.clock.now()))
        return response

    async def read(self, within_s: float) -> bytes | None:
        """The next bytes of the body; None at its end."""
        assert self._body is not None
        try:
            with self._watchdog.until(self._deadline(within_s)):
                data = await anext(self._body, None)
        except TimeoutError:
            raise self._late("stopped sending") from None
        except _TRANSPORT_ERRORS as error:
            raise self._broken(error) from None
        self._has_bytes = True
        return data

    async def read_all(self, within_s: float, most: int, *, is_prefix_enough: bool = False) -> bytes:
        """The whole body, up to `most` bytes."""
        body = bytearray()
        while (data := await self.read(within_s)) is not None:
            body += data
            if len(body) > most:
                if is_prefix_enough:
                    return bytes(body[:most])
                raise Failure(Kind.BROKEN, f"the answer is larger than {most} bytes")
        return bytes(body)

    async def drain(self) -> None:
        """Waits a moment for the end of a body that has said all there is, so that the connection can be used again."""
        try:
            while await self.read(DRAIN_S) is not None:
                pass
        except Failure:
            # The answer is complete; only the connection is lost.
            pass

    async def close(self) -> None:
        """Gives the connection back, or closes it when the answer is not complete."""
        self._watchdog.close()
        if self._response is not None:
            await self._response.stream.aclose()  # type: ignore[union-attr]

    def _deadline(self, within_s: float) -> float:
        return min(self._loop.time() + within_s, self._end_at)

    def _late(self, what: str) -> Failure:
        return Failure(Kind.LATE if self._has_bytes else Kind.TIMEOUT, f"the provider {what}")

    def _broken(self, error: Exception) -> Failure:
        """Own words only: the texts of these errors hold addresses."""
        cause = error.__cause__ or error
        if isinstance(cause, TimeoutError):
            return self._late("could not be reached in time")
        if self._has_bytes:
            return Failure(Kind.BROKEN, "the connection broke in the middle of the answer")
        number = cause.errno if isinstance(cause, OSError) else None
        detail = f": {os.strerror(number)}" if number and number > 0 else ""
        what = (
            "the provider cannot be reached" if isinstance(cause, aiohttp.ClientConnectorError) else "the connection broke before an answer"
        )
        return Failure(Kind.UNREACHABLE, what + detail)


class HttpAnswer:
    """A chat completion over HTTP."""

    def __init__(self, backend: HttpBackend, request: chat_pb2.ChatRequest, model: str, headers: Mapping[str, str]) -> None:
        self._backend = backend
        self._request = request
        self._model = model
        self._headers = headers
        self._exchange: Exchange | None = None
        self._decoder: StreamDecoder | None = None
        self._failure: Failure | None = None

    async def read(self) -> Batch:
        try:
            if self._failure is not None:
                raise self._failure
            decoder = self._decoder or await self._open()
            return await self._read(decoder)
        except Failure as failure:
            raise failure.presentable(self._backend.secret) from None

    async def _open(self) -> StreamDecoder:
        backend, timeouts, request = self._backend, self._backend.timeouts, self._request
        wire = backend.adapter.encode(request, self._model)
        headers = {**wire.headers, **self._headers}
        total_s = timeouts.stream_total_s if request.stream else timeouts.total_s
        self._exchange = Exchange(backend, backend.request("POST", wire.path, headers, wire.body), total_s)
        self._wait_s = timeouts.first_byte_s if request.stream else timeouts.total_s
        response = await self._exchange.open(self._wait_s)
        self._decoder = backend.adapter.decoder(request, response.headers.get("content-type", ""))
        return self._decoder

    async def _read(self, decoder: StreamDecoder) -> Batch:
        exchange = self._exchange
        assert exchange is not None
        events: list[chat_pb2.ChatEvent] = []
        while not events:
            data = await exchange.read(self._wait_s)
            self._wait_s = self._backend.timeouts.idle_s
            try:
                events.extend(decoder.close() if data is None else decoder.feed(data))
            except Failure as failure:
                if not events:
                    raise
                self._failure = failure
                break
            if data is None:
                return Batch(events, is_last=True)
            if decoder.is_done:
                await exchange.drain()
                return Batch(events, is_last=True)
        return Batch(events, is_last=False)

    async def close(self) -> None:
        if self._exchange is not None:
            await self._exchange.close()
