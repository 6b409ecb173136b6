"""The life of a process: read settings, build, serve, drain, leave.

Every service is `run(name, Settings, build)`, where `build(settings, mesh)` is an async context manager that adds its servicers to
`mesh.registry` and is left when the process stops. SIGTERM: health says NOT_SERVING, running calls get DRAIN_SECONDS, exit code 0.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection

from joulegate.session.v1 import session_service_pb2_grpc
from services.runtime import heap, http_face, interceptors, logs, metrics, settings
from services.runtime.http_face import HttpFace, routes
from services.runtime.mesh import MAX_MESSAGE_BYTES, LocalMesh, Mesh, RemoteMesh
from services.runtime.registry import Registry
from services.runtime.session import SessionServicer
from services.runtime.settings import SettingsError, setting
from services.runtime.tracing import Tracing

log = logs.get(__name__)
Build = Callable[[Any, Mesh], AbstractAsyncContextManager[None]]

SERVER_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 64 * 1024),
    # A second process on the same port must fail, not share it.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """What every process reads."""

    router_address: str = setting("ROUTER_ADDRESS", settings.address, "127.0.0.1:50051", "Where the router is found.")
    cache_address: str = setting("CACHE_ADDRESS", settings.address, "127.0.0.1:50052", "Where the cache is found.")
    dispatch_address: str = setting("DISPATCH_ADDRESS", settings.address, "127.0.0.1:50053", "Where dispatch is found.")
    ledger_address: str = setting("LEDGER_ADDRESS", settings.address, "127.0.0.1:50054", "Where the ledger is found.")
    listen: str | None = setting("GRPC_LISTEN", settings.address, None, "Where this process listens; its own address above when unset.")
    http_listen: str | None = setting("HTTP_LISTEN", settings.address, None, "Where the router takes chat by plain HTTP; unset: nowhere.")
    metrics_listen: str | None = setting("METRICS_LISTEN", settings.address, None, "Where this process serves Prometheus; unset: nowhere.")
    prometheus_enabled: bool = setting("PROMETHEUS_METRICS_ENABLED", settings.boolean, "true", "Whether METRICS_LISTEN is used.")
    drain_s: float = setting("DRAIN_SECONDS", settings.number(least=0), "30", "How long running calls may go on after SIGTERM.")
    log_level: str = setting("LOG_LEVEL", settings.one_of(*logs.LEVELS), "info", "debug, info, warning or error.")
    otel_enabled: bool = setting("OTEL_ENABLED", settings.boolean, "false", "Whether spans are made and exported.")
    otel_endpoint: str | None = setting("OTEL_EXPORTER_OTLP_ENDPOINT", settings.text, None, "OTLP over HTTP, without /v1/traces.")
    otel_headers: str | None = setting("OTEL_EXPORTER_OTLP_HEADERS", settings.text, None, "`name=value,...` for the exporter.")

    def addresses(self) -> dict[str, str]:
        return {
            "router": self.router_address,
            "cache": self.cache_address,
            "dispatch": self.dispatch_address,
            "ledger": self.ledger_address,
        }


def run(name: str, settings_class: type[Any], build: Build) -> int:
    """Serves one service until SIGTERM or SIGINT. Gives the exit code: 0 after a drain, 2 for wrong settings, 1 when it cannot start."""
    return _main(name, [(settings_class, build)], in_process=False)


def run_together(parts: Sequence[tuple[type[Any], Build]]) -> int:
    """Serves several services in one process, at the router's address."""
    return _main("all", parts, in_process=True)


def _main(name: str, parts: Sequence[tuple[type[Any], Build]], in_process: bool) -> int:
    environment = settings.read_environment(os.environ)
    try:
        runtime, *loaded = load_all([RuntimeSettings, *(cls for cls, _ in parts)], environment)
        logs.configure(name, runtime.log_level)
        builds = [(own, build) for own, (_, build) in zip(loaded, parts, strict=True)]
        return uvloop.run(_serve(name, runtime, builds, in_process))
    except SettingsError as error:
        print(f"joulegate {name}: wrong settings:", *error.problems, sep="\n  ", file=sys.stderr)
        return 2


def load_all(classes: Sequence[type[Any]], environment: Mapping[str, str]) -> list[Any]:
    """Loads several settings classes. Raises SettingsError with the problems of all of them."""
    loaded, problems = [], []
    for cls in classes:
        try:
            loaded.append(settings.load(cls, environment))
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(list(dict.fromkeys(problems)))
    return loaded


async def _serve(name: str, runtime: RuntimeSettings, builds: Sequence[tuple[Any, Build]], in_process: bool) -> int:
    # The loop keeps a list of all async generators that have begun, to close them at its end: a dozen entries for each request. Whoever
    # iterates one here closes it too.
    sys.set_asyncgen_hooks(firstiter=None)
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with AsyncExitStack() as stack:
        tracing = Tracing()
        if runtime.otel_enabled:
            tracing.start(name, runtime.otel_endpoint, runtime.otel_headers, stack.callback)
        mesh = _mesh(runtime, tracing, in_process, stack)
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, mesh.registry)
        for own, build in builds:
            await stack.enter_async_context(build(own, mesh))
        bound = stack.enter_context(metrics.listener(runtime.metrics_listen if runtime.prometheus_enabled else None))
        address = runtime.listen or runtime.addresses()["router" if in_process else name]
        server = _server(mesh, tracing, address)
        await server.start()
        face = HttpFace(routes(mesh.registry), tracing)
        listening = await stack.enter_async_context(AsyncExitStack())
        await listening.enter_async_context(http_face.serve(face, runtime.http_listen if face.has_routes else None, runtime.drain_s))
        await _set_health(checks, mesh.registry, HealthCheckResponse.SERVING)
        log.info("ready", address=address, metrics=bound)
        settling = asyncio.create_task(heap.settle())
        await stop.wait()
        settling.cancel()
        log.info("draining", seconds=runtime.drain_s)
        await _set_health(checks, mesh.registry, HealthCheckResponse.NOT_SERVING)
        face.is_draining = True
        if not in_process:
            # Streams between processes would hold the server up. Within one, the answers that are still running need them to the end; they
            # go with the services, each of which is left after those that it serves.
            mesh.draining.set()
        await asyncio.gather(listening.aclose(), server.stop(runtime.drain_s))
    log.info("stopped")
    return 0


def _mesh(runtime: RuntimeSettings, tracing: Tracing, in_process: bool, stack: AsyncExitStack) -> RemoteMesh | LocalMesh:
    registry = Registry(interceptors.guard)
    if in_process:
        return LocalMesh(registry, tracing)
    return RemoteMesh(registry, runtime.addresses(), tracing, stack)


def _server(mesh: Mesh, tracing: Tracing, address: str) -> grpc.aio.Server:
    registry = mesh.registry
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(SessionServicer(registry, mesh.draining), registry)
    reflection.enable_server_reflection([*registry.services, reflection.SERVICE_NAME], registry)
    server = grpc.aio.server(interceptors=tracing.server_interceptors(), options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((registry.generic_handler(),))
    server.add_insecure_port(address)
    return server


async def _set_health(checks: health.aio.HealthServicer, registry: Registry, status: int) -> None:
    for service in ("", *registry.services):
        await checks.set(service, status)
