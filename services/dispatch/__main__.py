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
from joulegate.ledger.v1.entry_pb2 import EnergyBoundary
from joulegate.ops.v1.providers_service_pb2_grpc import add_ProvidersServiceServicer_to_server
from services.dispatch import breaker_gauge, upstream
from services.dispatch.addresses import is_this_machine
from services.dispatch.attempts import Attempts
from services.dispatch.backend import Backend
from services.dispatch.breaker import Breakers
from services.dispatch.catalog import read_catalog
from services.dispatch.counters import POWERCAP, CountersError, DeclaredWatts, open_counters
from services.dispatch.demo import DemoBackend
from services.dispatch.dialects import adapter_for
from services.dispatch.features import capabilities
from services.dispatch.listing import keep_listed
from services.dispatch.metering import Metering
from services.dispatch.metrics import watch_keys
from services.dispatch.ops_servicer import ProvidersServicer
from services.dispatch.provider_spec import DEMO, ProviderSpec
from services.dispatch.roster import Provider, Roster
from services.dispatch.servicer import DispatchServicer
from services.dispatch.settings import DispatchSettings
from services.runtime import app, logs
from services.runtime.admin_key import AdminKey
from services.runtime.clock import Clock, SystemClock
from services.runtime.config_file import read_config
from services.runtime.identity import Identities
from services.runtime.mesh import Mesh
from services.runtime.settings import SettingsError, read_environment

log = logs.get(__name__)


@asynccontextmanager
async def build(settings: DispatchSettings, mesh: Mesh) -> AsyncIterator[None]:
    # Keys of providers in joulegate.toml are in variables that the file names.
    catalog = read_catalog(settings, read_config(settings.config), read_environment(os.environ))
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(upstream.pool())
        counted = _metering(settings)
        meterings = [_metering_of(spec, counted, clock) for spec in catalog.providers]
        for metering in {each for each in (counted, *meterings) if each is not None}:
            await stack.enter_async_context(_background(metering.run()))
        roster = Roster(_provider(spec, session, clock, metering) for spec, metering in zip(catalog.providers, meterings, strict=True))
        attempts = Attempts(roster, catalog.retry, clock, random.random, own_cpu=mesh.own_cpu("dispatch"))
        servicer = DispatchServicer(attempts, roster, mesh.draining, mesh.tracing.outgoing_headers)
        pb_grpc.add_DispatchServiceServicer_to_server(servicer, mesh.registry)
        identities = Identities(settings.gateway_api_key, settings.auth_required)
        ops = ProvidersServicer(roster, identities, AdminKey(settings.admin_api_key), clock)
        add_ProvidersServiceServicer_to_server(ops, mesh.registry)
        stack.enter_context(breaker_gauge.exported(roster, clock))
        await stack.enter_async_context(_background(keep_listed(roster)))
        log.info("providers", enabled=[spec.name for spec in catalog.providers if spec.is_certain], disabled=dict(catalog.disabled))
        yield


def _metering(settings: DispatchSettings) -> Metering | None:
    """The counters that the settings name; None for none. Raises SettingsError when they are not to be had."""
    if not settings.energy_counters:
        return None
    try:
        found = open_counters(settings.energy_counters, settings.powercap_path)
    except CountersError as error:
        raise SettingsError([f"ENERGY_COUNTERS: {error}"]) from None
    is_machine = POWERCAP in settings.energy_counters
    return Metering(found, EnergyBoundary.ENERGY_BOUNDARY_IT if is_machine else EnergyBoundary.ENERGY_BOUNDARY_GPU)


def _metering_of(spec: ProviderSpec, counted: Metering | None, clock: Clock) -> Metering | None:
    """What tells the energy of a provider's answers; None for nothing. Raises SettingsError where counters are meant that are not read."""
    if spec.declared_watts:
        return Metering([DeclaredWatts(spec.declared_watts, clock.monotonic)], EnergyBoundary.ENERGY_BOUNDARY_IT, is_declared=True)
    if spec.is_measured and counted is None:
        raise SettingsError([f"[providers.{spec.name}]: measured = true needs ENERGY_COUNTERS"])
    is_here = is_this_machine(spec.base_url) if spec.is_measured is None else spec.is_measured
    return counted if spec.kind != DEMO and is_here else None


def _provider(spec: ProviderSpec, session: aiohttp.ClientSession, clock: Clock, metering: Metering | None) -> Provider:
    backend: Backend
    limiter = None
    if spec.kind == DEMO:
        backend, said = DemoBackend(clock), ["chat", "streaming"]
    else:
        adapter = adapter_for(spec)
        said = capabilities(adapter, next(iter(spec.models), "model"))
        backend = upstream.HttpBackend(session, adapter, spec.base_url, spec.keys, spec.timeouts, clock, spec.limits)
        limiter = backend.limiter
        watch_keys(spec.name, backend.keys, clock)
    return Provider(
        spec.name,
        spec.kind,
        backend,
        [pb.Model(id=model) for model in spec.models],
        is_present=spec.is_certain,
        breakers=Breakers(spec.breaker),
        capabilities=said,
        limiter=limiter,
        timeout_s=spec.timeouts.first_byte_s,
        metering=metering,
    )


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
