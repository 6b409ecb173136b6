"""Trace context goes from the client to the provider; spans are made and exported only where they are asked for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.fakes.openai_upstream import OpenAIUpstream, completion
from tests.mesh.gateway import ONE_PROCESS, PROCESSES, Gateway, provider_table, running

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
QUESTION = {"model": "small", "messages": [{"role": "user", "content": "trace me"}]}


@dataclass(slots=True)
class Collector:
    """An OTLP receiver over HTTP: names of the services and spans of the one trace that the tests start."""

    endpoint: str = ""
    services: set[str] = field(default_factory=set)
    spans: set[str] = field(default_factory=set)

    async def receive(self, request: web.Request) -> web.Response:
        for resource in ExportTraceServiceRequest.FromString(await request.read()).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    if span.trace_id.hex() == TRACE_ID:
                        self.services |= {pair.value.string_value for pair in resource.resource.attributes if pair.key == "service.name"}
                        self.spans.add(span.name)
        return web.Response()


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    application = web.Application(client_max_size=2**24)
    application.router.add_post("/v1/traces", collector.receive)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()


async def _ask(gateway: Gateway) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        # The second is none that could be handed on: it must not be in the way of the first.
        headers = [(b"traceparent", TRACEPARENT.encode()), (b"tracestate", b"\xc3\xa4\xff")]
        response = await http.post(f"{gateway.base_url}/chat/completions", json=QUESTION, headers=headers)
        assert response.status_code == 200, response.text


@pytest.mark.parametrize("mode", [PROCESSES, ONE_PROCESS])
async def test_with_tracing_spans_of_all_services_join_the_clients_trace_and_the_provider_continues_it(tmp_path: Path, mode: str) -> None:
    async with collecting() as collector, OpenAIUpstream() as upstream:
        tables = provider_table("lab", upstream.base_url, ["small"])
        settings = {"OTEL_ENABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_EXPORTER_OTLP_HEADERS": "x-team=lab"}
        async with running(tmp_path, mode, tables, **settings) as gateway:
            upstream.script(completion())
            await _ask(gateway)
            sent = upstream.calls[0].headers["traceparent"].split("-")
        # The exporters have flushed when their processes have left.
        assert "/joulegate.openai.v1.OpenAIService/CreateChatCompletion" in {f"/{name.lstrip('/')}" for name in collector.spans}
        assert sent[1] == TRACE_ID
        assert sent[2] != TRACEPARENT.split("-")[2]
        if mode == PROCESSES:
            assert {"joulegate-router", "joulegate-dispatch", "joulegate-cache"} <= collector.services


async def test_without_tracing_the_clients_context_passes_as_it_came_and_nothing_is_exported(tmp_path: Path) -> None:
    async with collecting() as collector, OpenAIUpstream() as upstream:
        tables = provider_table("lab", upstream.base_url, ["small"])
        async with running(tmp_path, PROCESSES, tables, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint) as gateway:
            upstream.script(completion())
            await _ask(gateway)
            assert upstream.calls[0].headers["traceparent"] == TRACEPARENT
        assert not collector.spans
