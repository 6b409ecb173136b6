"""Calls to providers over HTTP: one aiohttp pool for all of them (docs/adr/0005). What arrives is decoded as it arrives."""

import asyncio
import math
import os
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.adapters.base import Adapter, Reply, StreamDecoder
from services.dispatch.backend import Batch
from services.dispatch.failure import Failure, Kind
from services.dispatch.keys import REFUSALS, Key, KeyRing
from services.dispatch.limits import NO_LIMITS, Limiter, ProviderLimits
from services.dispatch.rate_headers import Rates, read_rates
from services.dispatch.retry import retry_after_s
from services.dispatch.timeouts import Timeouts
from services.dispatch.watchdog import Watchdog
from services.runtime.clock import Clock

MAX_ERROR_BYTES = 64 * 1024
MAX_LISTING_BYTES = 16 * 1024 * 1024
KEEP_ALIVE_S = 60.0
MAX_URLS = 1024
# How long the end of a body that is complete already may take, so that its connection can be used again.
DRAIN_S = 0.1
# What a provider says beyond this it took, it did not.
MAX_TOKENS = 10_000_000
# aiohttp writes a body in one piece, and warns above 1 MiB that this holds up the loop.
PIECE_BYTES = 256 * 1024

# Stands for the model where keys are refused for a listing.
_LISTING = "\0listing"
_TRANSPORT_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)


@asynccontextmanager
async def pool() -> AsyncIterator[aiohttp.ClientSession]:
    """The connections to all providers. Unbounded: whoever admits requests bounds them."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(), keepalive_timeout=KEEP_ALIVE_S),
        headers={"user-agent": "joulegate", "accept-encoding": "identity"},
        # Proxies, netrc and cookies of the machine's user are not the gateway's.
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )
    async with session:
        yield session


class HttpBackend:
    """A provider at an address, in a dialect. `draw` gives the random numbers in [0, 1) that keys are chosen by."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        adapter: Adapter,
        base_url: str,
        keys: Sequence[Key],
        timeouts: Timeouts,
        clock: Clock,
        limits: ProviderLimits = NO_LIMITS,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.session = session
        self.adapter = adapter
        self.keys = KeyRing(keys)
        self.limiter = Limiter(limits, self.keys)
        self.timeouts = timeouts
        self.clock = clock
        self._base_url = base_url
        self._draw = draw
        self._connect_timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect_s)
        self._urls: dict[str, URL] = {}
        self._headers = [adapter.authorization(key.secret.reveal()) for key in keys] or [{}]

    def call(self, request: chat_pb2.ChatRequest, model: str, headers: Mapping[str, str]) -> "HttpAnswer":
        # What cannot stand in a header must not break the call: it is only the trace.
        sendable = {name: value for name, value in headers.items() if value.isascii() and value.isprintable()}
        return HttpAnswer(self, request, model, sendable)

    async def list_models(self) -> Sequence[pb.Model]:
        exchange = Exchange(self, self.timeouts.total_s)
        sent = Sent("GET", self.adapter.models_path, {"accept": "application/json"}, None, self.timeouts.first_byte_s)
        try:
            await self.open(exchange, sent, _LISTING)
            body = await exchange.read_all(self.timeouts.idle_s, MAX_LISTING_BYTES)
            return self.adapter.decode_models(body)
        except Failure as failure:
            raise failure.presentable(self.keys.redact) from None
        finally:
            exchange.close()

    async def open(self, exchange: "Exchange", sent: "Sent", model: str) -> aiohttp.ClientResponse:
        """Sends a request with one key, and with another as long as that is refused and another is usable. Raises Failure."""
        limiter, now = self.limiter, self.clock.monotonic()
        # A listing counts nowhere, and shows nothing of an account without money.
        is_call = model != _LISTING
        tried: list[int] = []
        refusal: Failure | None = None
        may_go = not is_call or not limiter.own_wait_s(now, sent.tokens)
        while may_go and (key := limiter.choose(now, self._draw(), sent.tokens, model, tried)) is not None:
            if is_call:
                limiter.take(now, sent.tokens, model, key)
            try:
                response = await exchange.open(sent, self._headers[key])
            except Failure as failure:
                now = self.clock.monotonic()
                if exchange.is_refused:
                    limiter.settle(now, sent.tokens, 0)
                if failure.http_status not in REFUSALS:
                    raise
                refusal = failure
                tried.append(key)
                self.keys.refused(key, model, now, failure.http_status, failure.retry_after_s, failure.code)
                continue
            finally:
                now = self.clock.monotonic()
                limiter.learn(now, exchange.rates(), model, key)
            if is_call:
                self.keys.accepted(key, model, now)
            return response
        wait_s = limiter.wait_s(now, sent.tokens, model)
        if refusal is None:
            raise Failure(Kind.WITHHELD, "it is at its rate limit", http_status=429, retry_after_s=wait_s)
        if len(self.keys.keys) > 1 and wait_s:
            refusal.retry_after_s = wait_s
        raise refusal

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Awaitable[aiohttp.ClientResponse]:
        """Sends a request with all its headers; gives the answer once its own headers are here."""
        url = self._urls.get(path)
        if url is None:
            url = URL(self._base_url + path)
            # In some dialects the path names the model, and a client may name any.
            if len(self._urls) < MAX_URLS:
                self._urls[path] = url
        data: bytes | AsyncIterator[bytes] | None = body
        if body is not None and len(body) > PIECE_BYTES:
            headers = {**headers, "content-length": str(len(body))}
            data = _pieces(body)
        return self.session.request(method, url, headers=headers, data=data, timeout=self._connect_timeout, allow_redirects=False)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """A large body, such as one with images, that lets others have the loop in between."""
    view = memoryview(body)
    for start in range(0, len(view), PIECE_BYTES):
        yield bytes(view[start : start + PIECE_BYTES])


class Sent(NamedTuple):
    """An HTTP request less address and key, how long its headers may be waited for, and what it may take of a limit on tokens."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    within_s: float
    tokens: int = 0


class Exchange:
    """One HTTP request and the body of its answer, within deadlines; after a refusal, another one. Every fault is a Failure."""

    def __init__(self, backend: HttpBackend, total_s: float) -> None:
        self._backend = backend
        self._loop = asyncio.get_running_loop()
        self._watchdog = Watchdog()
        self._end_at = self._loop.time() + total_s
        self._response: aiohttp.ClientResponse | None = None
        self._has_bytes = False

    async def open(self, sent: Sent, key_headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Sends the request. Raises Failure unless the status is one of success, with what the error's body says."""
        if self._response is not None:
            self._response.release()
            self._response, self._has_bytes = None, False
        try:
            with self._watchdog.until(self._deadline(sent.within_s)):
                response = await self._backend.request(sent.method, sent.path, {**key_headers, **sent.headers}, sent.body)
        except TimeoutError as error:
            what = "could not be reached in time" if isinstance(error, aiohttp.ConnectionTimeoutError) else "did not answer in time"
            raise self._late(what) from None
        except _TRANSPORT_ERRORS as error:
            raise self._broken(error) from None
        self._response = response
        if not 200 <= response.status < 300:
            error_body = await self.read_all(sent.within_s, MAX_ERROR_BYTES, is_prefix_enough=True)
            failure = self._backend.adapter.decode_error(response.status, error_body)
            raise failure.presentable(self._backend.keys.redact, retry_after_s(response.headers, self._backend.clock.now()))
        return response

    @property
    def is_refused(self) -> bool:
        """Whether the provider said no, in so many words."""
        return self._response is not None and self._response.status >= 400

    def rates(self) -> Rates:
        """What the answer's headers say of limits."""
        return {} if self._response is None else read_rates(self._response.headers, self._backend.clock.now())

    async def read(self, within_s: float, begin_by: float = math.inf) -> bytes:
        """The next bytes of the body, none only at its end. `begin_by`, in the loop's time, bounds the wait for what is no sign of life."""
        assert self._response is not None
        content = self._response.content
        try:
            if content.is_eof():
                # All has come, often with the headers: nothing to wait for.
                data = content.read_nowait()
            else:
                with self._watchdog.until(min(self._deadline(within_s), begin_by)):
                    data = await content.readany()
        except TimeoutError:
            raise self._late("stopped sending" if begin_by == math.inf else "did not begin its answer in time") from None
        except _TRANSPORT_ERRORS as error:
            raise self._broken(error) from None
        self._has_bytes = True
        return data

    @property
    def is_read(self) -> bool:
        """Whether the body was read to its end."""
        return self._response is not None and self._response.content.at_eof()

    async def read_all(self, within_s: float, most: int, *, is_prefix_enough: bool = False) -> bytes:
        """The whole body, up to `most` bytes."""
        body = bytearray()
        while not self.is_read:
            body += await self.read(within_s)
            if len(body) > most:
                if is_prefix_enough:
                    return bytes(body[:most])
                raise Failure(Kind.BROKEN, f"the answer is larger than {most} bytes")
        return bytes(body)

    async def drain(self) -> None:
        """Waits a moment for the end of a body that has said all there is, so that the connection can be used again."""
        self._end_at = self._deadline(DRAIN_S)
        try:
            while not self.is_read:
                await self.read(DRAIN_S)
        except Failure:
            # The answer is complete; only the connection is lost.
            pass

    def close(self) -> None:
        """Gives the connection back, or closes it when the answer is not complete."""
        self._watchdog.close()
        # One that was read to its end has given it back by itself.
        if self._response is not None and not self._response.closed:
            self._response.release()

    def _deadline(self, within_s: float) -> float:
        return min(self._loop.time() + within_s, self._end_at)

    def _late(self, what: str) -> Failure:
        return Failure(Kind.LATE if self._has_bytes else Kind.TIMEOUT, f"the provider {what}")

    def _broken(self, error: Exception) -> Failure:
        """Own words only: the texts of these errors hold addresses."""
        if self._has_bytes:
            return Failure(Kind.BROKEN, "the connection broke in the middle of the answer")
        number = error.errno if isinstance(error, OSError) else None
        detail = f": {os.strerror(number)}" if number and number > 0 else ""
        what = (
            "the provider cannot be reached" if isinstance(error, aiohttp.ClientConnectorError) else "the connection broke before an answer"
        )
        return Failure(Kind.UNREACHABLE, what + detail)


class HttpAnswer:
    """A chat completion over HTTP."""

    def __init__(self, backend: HttpBackend, request: chat_pb2.ChatRequest, model: str, headers: Mapping[str, str]) -> None:
        self._backend = backend
        self._request = request
        self._model = model
        self._headers = headers
        self.warnings: Sequence[str] = ()
        self._exchange: Exchange | None = None
        self._decoder: StreamDecoder | None = None
        self._failure: Failure | None = None
        self._wait_s = 0.0
        # When the first event of a stream has to be here, in the loop's time.
        self._begin_by = math.inf
        # Of the provider's limit on tokens; 0 where there is none.
        self._reserved = backend.limiter.estimate(request)

    async def read(self) -> Batch:
        try:
            if self._failure is not None:
                raise self._failure
            decoder = self._decoder or await self._open()
            exchange = self._exchange
            assert exchange is not None
            events: Sequence[chat_pb2.ChatEvent] = ()
            is_last = is_end = False
            while not (events or is_last):
                data = await exchange.read(self._wait_s, self._begin_by)
                self._wait_s, is_end = self._backend.timeouts.idle_s, exchange.is_read
                events = self._decode(decoder, data, is_end=is_end)
                is_last = self._failure is None and (is_end or decoder.is_done)
            self._begin_by = math.inf
            if is_last and not is_end:
                await exchange.drain()
            return Batch(events, is_last)
        except Failure as failure:
            raise failure.presentable(self._backend.keys.redact) from None

    async def _open(self) -> StreamDecoder:
        backend, timeouts, request = self._backend, self._backend.timeouts, self._request
        wire = backend.adapter.encode(request, self._model)
        self.warnings = wire.warnings
        headers = {**wire.headers, **self._headers} if self._headers else wire.headers
        total_s = timeouts.stream_total_s if request.stream else timeouts.total_s
        self._exchange = Exchange(backend, total_s)
        self._wait_s = timeouts.first_byte_s if request.stream else timeouts.total_s
        if request.stream:
            self._begin_by = asyncio.get_running_loop().time() + timeouts.first_byte_s
        sent = Sent("POST", wire.path, headers, wire.body, self._wait_s, self._reserved)
        response = await backend.open(self._exchange, sent, self._model)
        # Told apart is all it must be; a number that nobody can guess costs ten times as much.
        reply_id = f"chatcmpl-{random.getrandbits(96):024x}"
        reply = Reply(response.headers.get("content-type", ""), reply_id, int(backend.clock.now()), self._model)
        self._decoder = backend.adapter.decoder(request, reply)
        return self._decoder

    def _decode(self, decoder: StreamDecoder, data: bytes, *, is_end: bool) -> Sequence[chat_pb2.ChatEvent]:
        """The events that `data` completes. A failure after some of them is kept for the next read."""
        events: list[chat_pb2.ChatEvent] = []
        try:
            if data:
                events.extend(decoder.feed(data))
            if is_end and not decoder.is_done:
                events.extend(decoder.close())
        except Failure as failure:
            if not events:
                raise
            self._failure = failure
            return events
        if self._reserved:
            self._settle(events)
        return events

    def _settle(self, events: Sequence[chat_pb2.ChatEvent]) -> None:
        """Corrects the reservation once the answer says what it took. One that does not end keeps it: nobody knows better."""
        for event in events:
            source = event.chunk if event.HasField("chunk") else event.completion
            if source.HasField("usage"):
                used = min(max(0, source.usage.total_tokens), MAX_TOKENS)
                self._backend.limiter.settle(self._backend.clock.monotonic(), self._reserved, used)
                self._reserved = used

    def close(self) -> None:
        if self._exchange is not None:
            self._exchange.close()
