"""Trace context from the client to the provider, and OpenTelemetry where it is asked for.

With OTEL_ENABLED off, the client's `traceparent` and `tracestate` are passed along as they came: that costs nothing. With it on, grpc's
instrumentation makes spans for calls (+55 to 70 % per call even when nothing is sampled, hence the switch), and calls between services
go as RPCs of their own, since sessions would hide them from it.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import grpc

from services.runtime.interceptors import Context

CARRIED = ("traceparent", "tracestate")
_NO_SPAN = nullcontext()


def carried_metadata(context: Context) -> tuple[tuple[str, str], ...]:
    """The trace context of an incoming call, as metadata of the calls that it causes. What could be no metadata is left out."""
    carried: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        if key in CARRIED and isinstance(value, str):
            carried.setdefault(key, value)
    # Most requests bring none.
    return tuple((key, value) for key, value in carried.items() if value.isascii() and value.isprintable() and value) if carried else ()


class Tracing:
    """Nothing, until `start` is told to trace."""

    def __init__(self) -> None:
        self._instrumentation: Any = None

    @property
    def is_enabled(self) -> bool:
        return self._instrumentation is not None

    def start(self, service: str, endpoint: str | None, headers: str | None, at_exit: Callable[[Callable[[], None]], object]) -> None:
        """Exports spans by OTLP over HTTP. `headers` is `name=value,...`; unset values leave OpenTelemetry's own variables in force."""
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation import grpc as instrumentation
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        pairs = dict(part.split("=", 1) for part in headers.split(",")) if headers else None
        url = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
        provider = TracerProvider(resource=Resource.create({"service.name": f"joulegate-{service}"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, headers=pairs)))
        at_exit(provider.shutdown)
        trace.set_tracer_provider(provider)
        self._instrumentation = instrumentation

    def server_interceptors(self) -> Sequence[Any]:
        return [self._instrumentation.aio_server_interceptor()] if self.is_enabled else []

    def server_span(self, name: str, metadata: Iterable[tuple[str, str]]) -> AbstractContextManager[object]:
        """Stands around a call that did not come by gRPC. Nothing when not tracing."""
        if not self.is_enabled:
            return _NO_SPAN
        from opentelemetry import propagate, trace

        parent = propagate.extract(dict(metadata))
        return trace.get_tracer("joulegate").start_as_current_span(name, parent, trace.SpanKind.SERVER)

    def client_interceptors(self) -> Sequence[Any]:
        """Without those for bidirectional streams: instrumentation-grpc's gives back a generator, so `read` and `write` are lost."""
        if not self.is_enabled:
            return []
        kept = (grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.UnaryStreamClientInterceptor)
        return [interceptor for interceptor in self._instrumentation.aio_client_interceptors() if isinstance(interceptor, kept)]

    def outgoing_headers(self, context: Context) -> dict[str, str]:
        """Trace headers for a call that leaves the mesh: of the current span when tracing, else the client's own."""
        if not self.is_enabled:
            return dict(carried_metadata(context))
        from opentelemetry import propagate

        headers: dict[str, str] = {}
        propagate.inject(headers)
        return headers
