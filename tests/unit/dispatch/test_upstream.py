"""Calls over real HTTP: every fault becomes a Failure of the right kind; connections are kept or closed as they should be."""

import asyncio
import contextlib
import gzip
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from joulegate.chat.v1 import chat_pb2
from services.dispatch import upstream
from services.dispatch.adapters.openai import OpenAIAdapter
from services.dispatch.backend import Batch
from services.dispatch.failure import Failure, Kind
from services.dispatch.keys import Key
from services.dispatch.limits import ProviderLimits
from services.dispatch.timeouts import Timeouts
from services.dispatch.upstream import HttpAnswer, HttpBackend
from services.runtime.clock import SystemClock
from services.runtime.secret import Secret
from tests.fakes.openai_upstream import (
    Fault,
    OpenAIUpstream,
    Reply,
    answer,
    chunk,
    completion,
    completion_json,
    error,
    hang,
    reset,
    sse,
    stream,
)

ASK = chat_pb2.ChatRequest(model="auto", messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hi")])
ASK_STREAM = chat_pb2.ChatRequest(model="auto", stream=True, messages=ASK.messages)
KEY = "sk-canary-123"
PATIENT = Timeouts(connect_s=5, first_byte_s=5, idle_s=5, total_s=5, stream_total_s=5)
SHORT = 0.05


@pytest.fixture
async def fake() -> AsyncIterator[OpenAIUpstream]:
    async with OpenAIUpstream() as upstream:
        yield upstream


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with upstream.pool() as session:
        yield session


@pytest.fixture
def backend(fake: OpenAIUpstream, session: aiohttp.ClientSession) -> HttpBackend:
    return HttpBackend(session, OpenAIAdapter(), fake.base_url, [Key(Secret(KEY))], PATIENT, SystemClock())


def impatient(backend: HttpBackend, **seconds: float) -> HttpBackend:
    return HttpBackend(backend.session, OpenAIAdapter(), backend._base_url, backend.keys.keys, replace(PATIENT, **seconds), backend.clock)


async def read_all(call: HttpAnswer) -> list[Batch]:
    try:
        batches = [await call.read()]
        while not batches[-1].is_last:
            batches.append(await call.read())
        return batches
    finally:
        call.close()


async def failure_of(call: HttpAnswer, events_before: int = 0) -> Failure:
    """The failure that a call ends with, after so many events."""
    events = 0
    try:
        while True:
            batch = await call.read()
            events += len(batch.events)
            assert not batch.is_last, "the call was meant to fail"
    except Failure as failure:
        assert events == events_before
        return failure
    finally:
        call.close()


async def test_a_request_arrives_as_it_was_with_key_and_trace(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(completion())
    [batch] = await read_all(backend.call(ASK, "small", {"traceparent": "00-1-2-01"}))
    assert batch.is_last
    [call] = fake.calls
    assert (call.method, call.path) == ("POST", "/v1/chat/completions")
    assert call.json == {"model": "small", "messages": [{"role": "user", "content": "Hi"}]}
    assert {name.lower(): value for name, value in call.headers.items()} == {
        "host": fake.base_url.removeprefix("http://").removesuffix("/v1"),
        "user-agent": "joulegate",
        "accept": "application/json",
        "accept-encoding": "identity",
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "content-length": str(len(call.body)),
        "traceparent": "00-1-2-01",
    }


async def test_no_key_means_no_authorization(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(completion())
    keyless = HttpBackend(backend.session, OpenAIAdapter(), fake.base_url, (), PATIENT, SystemClock())
    await read_all(keyless.call(ASK, "small", {}))
    assert "authorization" not in {name.lower() for name in fake.calls[0].headers}


async def test_a_trace_that_cannot_stand_in_a_header_is_left_out(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(completion())
    await read_all(backend.call(ASK, "small", {"traceparent": "a\r\nx: y", "tracestate": "ü"}))
    assert not {"Traceparent", "Tracestate", "traceparent", "tracestate", "x"} & fake.calls[0].headers.keys()


async def test_a_large_body_arrives_whole(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(completion())
    text = "joule " * 700_000
    large = chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text=text)])
    await read_all(backend.call(large, "small", {}))
    [call] = fake.calls
    assert call.json["messages"][0]["content"] == text
    assert call.headers["Content-Length"] == str(len(call.body))


async def test_connections_are_used_again_after_whole_answers_streams_and_errors(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(completion(), stream("a"), error(503, "busy"), sse(chunk({}, finish="stop")), completion())
    await read_all(backend.call(ASK, "small", {}))
    await read_all(backend.call(ASK_STREAM, "small", {}))
    await failure_of(backend.call(ASK, "small", {}))
    await read_all(backend.call(ASK_STREAM, "small", {}))
    await read_all(backend.call(ASK, "small", {}))
    assert len({id(call.disconnected) for call in fake.calls}) == 1


async def test_the_end_of_a_body_may_come_after_done(fake: OpenAIUpstream, backend: HttpBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "DRAIN_S", 5.0)
    gate = asyncio.Event()
    fake.script(sse(*stream("a").steps, gate), completion())
    reading = asyncio.create_task(read_all(backend.call(ASK_STREAM, "small", {})))
    await fake.arrived()
    asyncio.get_running_loop().call_later(0.02, gate.set)
    await reading
    await read_all(backend.call(ASK, "small", {}))
    assert fake.calls[0].disconnected is fake.calls[1].disconnected


async def test_a_stream_is_done_at_done_even_if_the_body_never_ends(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    whole = stream("a")
    fake.script(sse(*whole.steps, Fault.HANG))
    batches = await read_all(backend.call(ASK_STREAM, "small", {}))
    assert sum(len(batch.events) for batch in batches) == 4
    await fake.calls[0].disconnected.wait()


async def test_what_is_sent_after_the_end_does_not_hold_the_end_up(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    endless = [b": more\n\n" * 1000] * 200_000
    fake.script(sse(*stream("a").steps, *endless))
    async with asyncio.timeout(PATIENT.stream_total_s / 2):
        batches = await read_all(backend.call(ASK_STREAM, "small", {}))
        await fake.calls[0].disconnected.wait()
    assert sum(len(batch.events) for batch in batches) == 4


async def test_events_come_as_they_arrive(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    gate = asyncio.Event()
    fake.script(stream("a", gate, "b"))
    call = backend.call(ASK_STREAM, "small", {})
    first = await call.read()
    assert first.events[0].chunk.choices[0].delta.role == chat_pb2.ROLE_ASSISTANT
    assert not first.is_last
    gate.set()
    rest = await read_all(call)
    assert rest[-1].is_last


async def test_answers_that_are_compressed_against_our_wish_are_read(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(answer(gzip.compress(json.dumps(completion_json("Hello!")).encode()), headers={"content-encoding": "gzip"}))
    [batch] = await read_all(backend.call(ASK, "small", {}))
    assert batch.events[0].completion.choices[0].message.text == "Hello!"


async def test_a_redirect_is_not_followed(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(answer("", status=307, headers={"location": fake.base_url + "/elsewhere"}))
    failure = await failure_of(backend.call(ASK, "small", {}))
    assert (failure.kind, failure.http_status, len(fake.calls)) == (Kind.REFUSED, 307, 1)


async def test_cookies_are_not_kept(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(answer(json.dumps(completion_json("Hi")), headers={"set-cookie": "a=b; Path=/"}), completion())
    await read_all(backend.call(ASK, "small", {}))
    await read_all(backend.call(ASK, "small", {}))
    assert "Cookie" not in fake.calls[1].headers


async def test_proxies_of_the_environment_are_not_used(fake: OpenAIUpstream, backend: HttpBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    fake.script(completion())
    assert await read_all(backend.call(ASK, "small", {}))


@pytest.mark.parametrize(
    ("reply", "kind", "status"),
    [
        (error(400, "bad"), Kind.REFUSED, 400),
        (error(503, "busy"), Kind.REFUSED, 503),
        (answer("<html><title>Bad Gateway</title>", status=502, content_type="text/html"), Kind.REFUSED, 502),
        (answer("", status=500), Kind.REFUSED, 500),
        (answer("<html>", content_type="text/html"), Kind.BROKEN, 0),
        (answer("{oops"), Kind.BROKEN, 0),
        (answer(""), Kind.BROKEN, 0),
        (reset(), Kind.UNREACHABLE, 0),
        (Reply(before=[Fault.CLOSE]), Kind.UNREACHABLE, 0),
        (Reply([b'{"id":', Fault.RESET], headers={"content-type": "application/json"}), Kind.BROKEN, 0),
        (Reply([b'{"id":', Fault.CLOSE], headers={"content-type": "application/json", "content-length": "999"}), Kind.BROKEN, 0),
    ],
    ids=["400", "503", "html error", "empty error", "html", "no json", "empty", "reset", "closed", "reset midway", "closed midway"],
)
async def test_every_fault_of_a_whole_answer_has_its_kind(
    fake: OpenAIUpstream, backend: HttpBackend, reply: Reply, kind: Kind, status: int
) -> None:
    fake.script(reply)
    failure = await failure_of(backend.call(ASK, "small", {}))
    assert (failure.kind, failure.http_status) == (kind, status)
    assert len(fake.calls) == 1, "the library must not retry"


@pytest.mark.parametrize(
    "reply",
    [
        sse(chunk({"content": "a"})),
        sse(chunk({"content": "a"}), Fault.RESET),
        sse(chunk({"content": "a"}), Fault.CLOSE),
        sse(chunk({"content": "a"}), b'data: {"error":{"message":"overloaded"}}\n\n', Fault.HANG),
        sse(chunk({"content": "a"}), b"data: {\n\n"),
    ],
    ids=["ends", "reset", "closed", "error event", "no json"],
)
async def test_a_stream_that_breaks_gives_its_events_first(fake: OpenAIUpstream, backend: HttpBackend, reply: Reply) -> None:
    fake.script(reply)
    failure = await failure_of(backend.call(ASK_STREAM, "small", {}), events_before=1)
    assert failure.kind in (Kind.BROKEN, Kind.REFUSED)


async def test_nobody_at_the_address_is_unreachable(backend: HttpBackend) -> None:
    async with OpenAIUpstream() as gone:
        address = gone.base_url
    nobody = HttpBackend(backend.session, OpenAIAdapter(), address, (), PATIENT, SystemClock())
    failure = await failure_of(nobody.call(ASK, "small", {}))
    assert (failure.kind, failure.message) == (Kind.UNREACHABLE, "the provider cannot be reached: Connection refused")


@pytest.mark.parametrize("request_", [ASK, ASK_STREAM], ids=["whole", "stream"])
async def test_an_answer_that_does_not_come_times_out(fake: OpenAIUpstream, backend: HttpBackend, request_: chat_pb2.ChatRequest) -> None:
    fake.script(hang())
    seconds = {"first_byte_s": SHORT} if request_.stream else {"total_s": SHORT}
    failure = await failure_of(impatient(backend, **seconds).call(request_, "small", {}))
    assert failure.kind is Kind.TIMEOUT
    await fake.calls[0].disconnected.wait()


async def test_headers_alone_are_no_first_byte(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(sse(Fault.HANG))
    assert (await failure_of(impatient(backend, first_byte_s=SHORT).call(ASK_STREAM, "small", {}))).kind is Kind.TIMEOUT


async def test_a_sign_of_life_is_no_first_event(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(sse(b": patience\n\n", Fault.HANG))
    async with asyncio.timeout(PATIENT.idle_s / 2):
        failure = await failure_of(impatient(backend, first_byte_s=SHORT).call(ASK_STREAM, "small", {}))
    assert (failure.kind, failure.message) == (Kind.LATE, "the provider did not begin its answer in time")


async def test_a_stream_that_falls_silent_is_late(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(sse(chunk({"content": "a"}), Fault.HANG))
    assert (await failure_of(impatient(backend, idle_s=SHORT).call(ASK_STREAM, "small", {}), events_before=1)).kind is Kind.LATE


async def test_a_stream_ends_at_its_total_bound_however_busy(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(sse(chunk({"content": "a"}), Fault.HANG))
    assert (await failure_of(impatient(backend, stream_total_s=SHORT).call(ASK_STREAM, "small", {}), events_before=1)).kind is Kind.LATE


async def test_a_connection_that_is_not_accepted_times_out(backend: HttpBackend) -> None:
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # Once the queue is full, the kernel drops what comes.
        for _ in range(8):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        timeouts = replace(PATIENT, connect_s=SHORT)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        stuck = HttpBackend(backend.session, OpenAIAdapter(), address, (), timeouts, SystemClock())
        assert (await failure_of(stuck.call(ASK, "small", {}))).kind is Kind.TIMEOUT


async def test_retry_after_is_told(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(error(429, "slow down", {"retry-after": "7"}))
    failure = await failure_of(backend.call(ASK, "small", {}))
    assert (failure.http_status, failure.retry_after_s) == (429, 7.0)


async def test_a_long_error_is_read_in_part(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(Reply([b"x" * 200_000, Fault.HANG], 500))
    failure = await failure_of(backend.call(ASK, "small", {}))
    assert (failure.http_status, len(failure.message)) == (500, 600)


async def test_closing_breaks_the_connection_of_an_unfinished_answer(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(sse(chunk({"content": "a"}), Fault.HANG))
    call = backend.call(ASK_STREAM, "small", {})
    await call.read()
    call.close()
    await fake.calls[0].disconnected.wait()


@pytest.mark.parametrize("reply", [hang(), sse(Fault.HANG)], ids=["before headers", "after headers"])
async def test_cancelling_a_read_breaks_the_connection(fake: OpenAIUpstream, backend: HttpBackend, reply: Reply) -> None:
    fake.script(reply)
    call = backend.call(ASK_STREAM, "small", {})
    reading = asyncio.create_task(call.read())
    arrived = await fake.arrived()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    call.close()
    await arrived.disconnected.wait()


@pytest.mark.parametrize(
    "reply",
    [
        error(401, f"Incorrect API key provided: {KEY}", code=f"bad {KEY}"),
        answer(f"<title>{KEY}</title>", status=500),
        answer(f"who is {KEY}?", status=400),
        answer(json.dumps({"error": {"message": f"no: {KEY}"}})),
        sse(b"event: error\n", f"data: {KEY}\n\n".encode()),
        sse(chunk({"content": "a"}), b'data: {"error":{"message":"' + KEY.encode() + b'"}}\n\n'),
    ],
    ids=["json", "html", "text", "with status 200", "first event", "later event"],
)
async def test_a_key_that_the_provider_echoes_goes_no_further(fake: OpenAIUpstream, backend: HttpBackend, reply: Reply) -> None:
    fake.script(reply)
    request = ASK_STREAM if reply.headers["content-type"].startswith("text/event-stream") else ASK
    call = backend.call(request, "small", {})
    with pytest.raises(Failure) as raised:
        await read_all(call)
    failure = raised.value
    assert "***" in failure.message
    assert KEY not in repr((failure, failure.message, failure.type, failure.param, failure.code, failure.summary))


def with_keys(backend: HttpBackend, *keys: Key) -> HttpBackend:
    """Draws are 0: the first usable key is chosen."""
    return HttpBackend(backend.session, OpenAIAdapter(), backend._base_url, keys, PATIENT, backend.clock, draw=lambda: 0.0)


def keys_shown(fake: OpenAIUpstream) -> list[str]:
    return [call.headers["Authorization"].removeprefix("Bearer ") for call in fake.calls]


A, B, C = Key(Secret("sk-a")), Key(Secret("sk-b")), Key(Secret("sk-c"))


@pytest.mark.parametrize("status", [401, 402, 403, 429])
async def test_a_key_that_is_refused_is_followed_by_another_within_the_call(
    fake: OpenAIUpstream, backend: HttpBackend, status: int
) -> None:
    fake.script(error(status, "not with this key"), completion("Hello!"), completion())
    ringed = with_keys(backend, A, B)
    [batch] = await read_all(ringed.call(ASK, "small", {}))
    assert batch.events[0].completion.choices[0].message.text == "Hello!"
    await read_all(ringed.call(ASK, "small", {}))
    assert keys_shown(fake) == ["sk-a", "sk-b", "sk-b"]


async def test_each_key_is_tried_once_and_the_soonest_back_is_told(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(*(error(429, "slow down", {"retry-after": wait}) for wait in ("30", "9", "20")))
    ringed = with_keys(backend, A, B, C)
    failure = await failure_of(ringed.call(ASK, "small", {}))
    assert keys_shown(fake) == ["sk-a", "sk-b", "sk-c"]
    assert (failure.kind, failure.http_status) == (Kind.REFUSED, 429)
    assert failure.retry_after_s == pytest.approx(9, abs=0.5)
    withheld = await failure_of(ringed.call(ASK, "small", {}))
    assert (withheld.kind, len(fake.calls)) == (Kind.WITHHELD, 3)
    assert withheld.retry_after_s == pytest.approx(9, abs=0.5)


@pytest.mark.parametrize("status", [400, 404, 408, 500, 503])
async def test_what_is_not_the_keys_fault_is_not_tried_with_another(fake: OpenAIUpstream, backend: HttpBackend, status: int) -> None:
    fake.script(error(status, "no"))
    assert (await failure_of(with_keys(backend, A, B).call(ASK, "small", {}))).http_status == status
    assert keys_shown(fake) == ["sk-a"]


async def test_a_stream_that_hangs_with_the_second_key_is_a_timeout_not_a_late_answer(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(error(401, "no"), hang())
    ringed = with_keys(backend, A, B)
    ringed.timeouts = replace(PATIENT, first_byte_s=SHORT)
    assert (await failure_of(ringed.call(ASK_STREAM, "small", {}))).kind is Kind.TIMEOUT


async def test_none_of_a_providers_keys_is_told(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(error(401, "neither sk-a"), error(400, "nor sk-b, nor sk-c"))
    failure = await failure_of(with_keys(backend, A, B, C).call(ASK, "small", {}))
    assert failure.message == "nor ***, nor ***"


def limited(backend: HttpBackend, **limits: float) -> HttpBackend:
    return HttpBackend(backend.session, OpenAIAdapter(), backend._base_url, (A,), PATIENT, backend.clock, ProviderLimits(**limits))


async def test_a_call_beyond_the_providers_limit_does_not_go_out(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(completion())
    bounded = limited(backend, requests_per_minute=1)
    await read_all(bounded.call(ASK, "small", {}))
    failure = await failure_of(bounded.call(ASK, "small", {}))
    assert (failure.kind, failure.http_status, len(fake.calls)) == (Kind.WITHHELD, 429, 1)
    assert failure.retry_after_s == pytest.approx(60, abs=1)
    assert await bounded.list_models(), "a listing is free"


@pytest.mark.parametrize("reply", [completion(), stream("a")], ids=["whole", "stream"])
async def test_tokens_that_an_answer_did_not_take_come_back(fake: OpenAIUpstream, backend: HttpBackend, reply: Reply) -> None:
    fake.script(reply)
    request = ASK_STREAM if reply.headers["content-type"].startswith("text/event-stream") else ASK
    asked = chat_pb2.ChatRequest(messages=ASK.messages, stream=request.stream, max_tokens=500)
    bounded = limited(backend, tokens_per_minute=600)
    await read_all(bounded.call(asked, "small", {}))
    assert bounded.limiter.wait_s(bounded.clock.monotonic(), 590) == 0
    assert bounded.limiter.wait_s(bounded.clock.monotonic(), 600) == pytest.approx(0.7, abs=0.2), "7 tokens were taken"


async def test_tokens_of_a_refused_call_come_back(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.script(error(400, "no"))
    bounded = limited(backend, tokens_per_minute=600)
    await failure_of(bounded.call(ASK, "small", {}))
    assert bounded.limiter.wait_s(bounded.clock.monotonic(), 600) == 0


@pytest.mark.parametrize("status", [200, 503])
async def test_what_the_headers_say_is_kept_to_by_key_and_model(fake: OpenAIUpstream, backend: HttpBackend, status: int) -> None:
    said = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "40s"}
    body = json.dumps(completion_json("Hi"))
    fake.script(answer(body, status=status, headers=said), completion(), answer(body, status=status, headers=said))
    ringed = with_keys(backend, A, B)
    for model in ("small", "large", "small"):
        with contextlib.suppress(Failure):
            await read_all(ringed.call(ASK, model, {}))
    assert keys_shown(fake) == ["sk-a", "sk-a", "sk-b"]
    withheld = await failure_of(ringed.call(ASK, "small", {}))
    assert withheld.kind is Kind.WITHHELD
    assert withheld.retry_after_s == pytest.approx(40, abs=1)


async def test_models_are_listed(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    assert [model.id for model in await backend.list_models()] == ["small", "large"]
    assert fake.listings[0].path == "/v1/models"
    assert fake.listings[0].headers["Authorization"] == f"Bearer {KEY}"


async def test_a_listing_that_fails_is_a_failure(fake: OpenAIUpstream, backend: HttpBackend) -> None:
    fake.models = None
    with pytest.raises(Failure) as raised:
        await backend.list_models()
    assert raised.value.http_status == 404
