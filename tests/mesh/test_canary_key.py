"""Providers of every dialect show the keys they were sent wherever they can; none may come out of the gateway anywhere."""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from tests.fakes.dialects import DIALECTS, Dialect
from tests.fakes.upstream import Call, Reply, Upstream, answer
from tests.mesh.asking import CHAT, UNCACHED, question
from tests.mesh.gateway import ADMIN_KEY, ONE_PROCESS, PROCESSES, Gateway, running

KEYS = ("sk-canary-one-0123456789", "sk-canary-two-9876543210")
SHOWN = f"no such key: {' or '.join(KEYS)}"
SHOWING = ("x-request-id", "retry-after", "x-ratelimit-remaining-requests", "x-ratelimit-reset-tokens", "openai-organization", "set-cookie")
HEADERS = dict.fromkeys(SHOWING, KEYS[0])
PATHS = ("/", "/health", "/v1/models", "/providers", "/api/providers", "/v1/providers", "/api/circuit-breakers", "/metrics")
# Each fault is met on its own: neither a breaker nor a repeat may stand before it.
POLICY = "[retry]\nattempts = 1\n[breaker]\nfailures = 10000\nminimum_calls = 1000000\n"


def answers(dialect: Dialect) -> Iterator[tuple[bool, Reply]]:
    """Whether a stream is asked for, and an answer that shows the keys. Only what a model says is passed on as it is."""
    parts = dialect.words.stream_parts("Hel", "lo!")
    whole = dialect.words.whole("Hello!")
    kind = parts.content_type
    for status in (400, 401, 403, 404, 429, 500):
        yield False, answer(dialect.words.error_body(status, SHOWN), status=status, headers=HEADERS)
    yield True, answer(dialect.words.error_body(503, SHOWN), status=503, headers=HEADERS)
    yield False, answer(json.dumps({"error": dict.fromkeys(("message", "type", "param", "code", "status"), SHOWN)}), status=400)
    yield False, answer(json.dumps({"detail": [{"msg": SHOWN, "input": KEYS}]}), status=422)
    yield False, answer(f"<html><head><title>{SHOWN}</title></head></html>", status=502, content_type="text/html")
    yield False, answer("", status=302, headers={"location": f"http://127.0.0.1:9/?key={KEYS[0]}"})
    yield False, answer(SHOWN)
    yield False, answer(whole[:-5] + SHOWN.encode())
    yield False, answer(whole, headers=HEADERS)
    yield False, answer(whole, content_type=f"application/json; x={KEYS[0]}")
    yield True, answer(parts.opening + parts.pieces[0] + b"data: " + SHOWN.encode() + b"\n\n" + SHOWN.encode(), content_type=kind)
    failed = dialect.words.error_body(500, SHOWN)
    framed = b"event: error\ndata: " + failed + b"\n\n" if "event-stream" in kind else failed + b"\n"
    yield True, answer(parts.opening + parts.pieces[0] + framed, content_type=kind)
    yield True, answer(parts.opening + b"".join(parts.pieces) + parts.ending, content_type=kind, headers=HEADERS)


class Telltale:
    """A fake provider that shows the keys in its list of models too."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.upstream = type("TelltaleUpstream", (dialect.upstream,), {"_list_models": _refuse_list})()

    @property
    def table(self) -> str:
        kind = self.dialect.kind
        keys = 'api_keys = [{ env = "CANARY_1" }, { env = "CANARY_2", weight = 3 }]\n'
        return f'[providers.lab-{kind}]\nkind = "{kind}"\nbase_url = "{self.upstream.base_url}"\n{keys}'


def _refuse_list(_: Upstream) -> web.Response:
    return web.json_response({"error": {"message": SHOWN, "code": KEYS[1]}}, status=401, headers={"x-request-id": KEYS[0]})


@asynccontextmanager
async def recording() -> AsyncIterator[tuple[str, list[bytes]]]:
    """An OTLP receiver: its address and all that it got."""
    received: list[bytes] = []

    async def receive(request: web.Request) -> web.Response:
        received.append(await request.read())
        return web.Response()

    application = web.Application(client_max_size=2**26)
    application.router.add_post("/{path:.*}", receive)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", received
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("mode", [PROCESSES, ONE_PROCESS])
async def test_a_providers_key_is_seen_by_that_provider_alone(tmp_path: Path, mode: str) -> None:
    async with AsyncExitStack() as stack:
        collector, spans = await stack.enter_async_context(recording())
        telltales = [Telltale(dialect) for dialect in DIALECTS]
        for each in telltales:
            await stack.enter_async_context(each.upstream)
        settings = {"CANARY_1": KEYS[0], "CANARY_2": KEYS[1], "OTEL_ENABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector}
        tables = "".join(each.table for each in telltales) + POLICY
        async with running(tmp_path, mode, tables, LOG_LEVEL="debug", **settings) as gateway:
            outputs = await _provoked(gateway, telltales)
        for each in telltales:
            sent = _keys_in(call.headers for call in each.upstream.calls)
            # Else the test would prove nothing.
            assert sent == set(KEYS), f"{each.dialect.kind} was not sent both keys"
            assert _keys_in(call.headers for call in each.upstream.listings)
        assert spans
        kept = {str(path): path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
        assert any(name.endswith("ledger.db") for name in kept)
        outputs |= {"logs": gateway.text.encode(), "spans": b"".join(spans), **kept}
        leaks = [(place, key) for place, output in outputs.items() for key in KEYS if key.encode() in output]
        assert not leaks


async def _provoked(gateway: Gateway, telltales: list[Telltale]) -> dict[str, bytes]:
    """Everything that clients and operators get to see, by where."""
    outputs: dict[str, bytes] = {}
    async with httpx.AsyncClient(base_url=gateway.url, headers=UNCACHED, timeout=30) as http:
        for each in telltales:
            for place, (is_streamed, reply) in enumerate(answers(each.dialect)):
                each.upstream.always = _always(reply)
                body = question(model=f"lab-{each.dialect.kind}/m", stream=is_streamed)
                response = await http.post(CHAT, json=body)
                outputs[f"{each.dialect.kind} {place}"] = _all_of(response)
        for path in PATHS:
            outputs[path] = _all_of(await http.get(path))
        for each in telltales:
            name = f"lab-{each.dialect.kind}"
            outputs[f"health of {name}"] = _all_of(await http.get(f"/v1/providers/{name}/health"))
            breaker = f"/admin/providers/{name}/circuit-breaker"
            outputs[breaker] = _all_of(await http.get(breaker, headers={"authorization": f"Bearer {ADMIN_KEY}"}))
        metrics = re.findall(r"http://\S+/metrics", gateway.text)
        assert metrics
        for url in metrics:
            outputs[url] = _all_of(await http.get(url))
    outputs["books"] = json.dumps(await gateway.entries()).encode()
    return outputs


def _always(reply: Reply) -> Callable[[Call], Reply]:
    return lambda _: reply


def _all_of(response: httpx.Response) -> bytes:
    return repr(response.headers.raw).encode() + response.content


def _keys_in(headers: Iterable[Mapping[str, str]]) -> set[str]:
    return {key for each in headers for value in each.values() for key in KEYS if key in value}
