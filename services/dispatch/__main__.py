"""Builds dispatch and runs it."""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import aiohttp

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from joulegate.dispatch.v1 import dispatch_service_pb2_grpc as pb_grpc
from services.dispatch import upstream
from services.dispatch.adapters.openai import OpenAIAdapter
from services.dispatch.attempts import Attempts
from services.dispatch.backend import Backend
from services.dispatch.catalog import DEMO, ProviderSpec, read_catalog
from services.dispatch.demo import DemoBackend
from services.dispatch.listing import keep_listed
from services.dispatch.roster import Provider, Roster
from services.dispatch.servicer import DispatchServicer
from services.dispatch.settings import DispatchSettings
from services.runtime import app, logs
from services.runtime.clock import Clock, SystemClock
from services.runtime.config_file import read_config
from services.runtime.mesh import Mesh
from services.runtime.settings import read_environment

log = logs.get(__name__)


@asynccontextmanager
async def build(settings: DispatchSettings, mesh: Mesh) -> AsyncIterator[None]:
    # Keys of providers in joulegate.toml are in variables that the file names.
    config = read_config(settings.config)
    catalog = read_catalog(settings, config, read_environment(os.environ))
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(upstream.pool())
        roster = Roster(_provider(spec, session, clock) for spec in catalog.providers)
        attempts = Attempts(roster, catalog.retry, clock, random.random)
        servicer = DispatchServicer(attempts, roster, mesh.draining, mesh.tracing.outgoing_headers)
        pb_grpc.add_DispatchServiceServicer_to_server(servicer, mesh.registry)
        await stack.enter_async_context(_background(keep_listed(roster)))
        if "breaker" in config:
            log.warning("table_not_supported_yet", table="breaker")
        log.info("providers", enabled=[spec.name for spec in catalog.providers if spec.is_certain], disabled=dict(catalog.disabled))
        yield


def _provider(spec: ProviderSpec, session: aiohttp.ClientSession, clock: Clock) -> Provider:
    backend: Backend
    if spec.kind == DEMO:
        backend = DemoBackend(clock)
    else:
        # Both kinds there are speak OpenAI's dialect.
        backend = upstream.HttpBackend(session, OpenAIAdapter(), spec.base_url, spec.secret, spec.timeouts, clock)
    return Provider(spec.name, spec.kind, backend, [pb.Model(id=model) for model in spec.models], is_present=spec.is_certain)


@asynccontextmanager
async def _background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs `work` beside the body."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def main() -> int:
    return app.run("dispatch", DispatchSettings, build)


if __name__ == "__main__":
    sys.exit(main())
