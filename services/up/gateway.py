"""`joulegate up`: Envoy and the services on this machine, from the first process to the last."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from services.runtime import logs
from services.runtime.clock import SystemClock
from services.runtime.settings import SettingsError, read_environment
from services.up import edge, machine, plan, probe, settings
from services.up.keeper import HopelessError, Keeper
from services.up.machine import StartError
from services.up.plan import Place, ServiceCommand
from services.up.settings import UpSettings

log = logs.get(__name__)

_POLL_S: Final = 0.05
_PATIENCE_S: Final = 10.0
# A service needs a little longer than its streams.
_LEAVE_S: Final = 5.0


def serve_command(name: str) -> Sequence[str]:
    """The command line of a service. -P: a folder `services` where the user happens to be is not ours."""
    return (sys.executable, "-P", "-m", "services.cli", "serve", name)


def main(one_process: bool, command: ServiceCommand = serve_command) -> int:
    """Runs the gateway until it is told to stop. Gives the exit code: 0 after a drain, 1 when it cannot start, 2 for wrong settings."""
    environment = read_environment(os.environ)
    try:
        loaded = settings.load(environment)
    except SettingsError as error:
        print(f"joulegate up: {len(error.problems)} wrong settings:", *error.problems, sep="\n  ", file=sys.stderr)
        return 2
    logs.configure("up", loaded.log_level)
    try:
        with ExitStack() as stack:
            keepers, place = _prepare(loaded, environment, one_process, command, stack)
            return asyncio.run(Gateway(loaded, place, keepers).run())
    except StartError as error:
        print(f"joulegate up: {error}", file=sys.stderr)
        return 1
    except HopelessError as error:
        print(f"joulegate up: {error}. Its last words:\n{error.tail}", file=sys.stderr)
        return error.code if error.code == 2 else 1


def _prepare(
    loaded: UpSettings, environment: Mapping[str, str], one_process: bool, command: ServiceCommand, stack: ExitStack
) -> tuple[list[Keeper], Place]:
    """Takes what is needed from the machine. Raises StartError."""
    envoy = machine.find_envoy()
    stack.enter_context(machine.locked(loaded.data_dir))
    port = machine.public_port(loaded.host, loaded.port)
    measured = (plan.ONE_PROCESS if one_process else plan.MEASURED) if loaded.prometheus_enabled else ()
    metrics = machine.metrics_ports(
        measured, loaded.metrics_port, lambda taken, chosen: log.warning("metrics_port_taken", port=taken, instead=chosen)
    )
    place = Place(stack.enter_context(machine.private_folder()), port, metrics)
    config = edge.write(plan.envoy_config(loaded, place, one_process), place.runtime_dir)
    children = plan.service_children(loaded, environment, place, one_process, command)
    envoy_command = edge.command(envoy, config, concurrency=min(2, os.cpu_count() or 1))
    # Envoy is last: it is the last to leave.
    children.append(plan.envoy_child(envoy_command, environment, place))
    return [Keeper(child, SystemClock()) for child in children], place


class Gateway:
    """The running whole."""

    def __init__(self, loaded: UpSettings, place: Place, keepers: Sequence[Keeper]) -> None:
        self._settings = loaded
        self._place = place
        self._keepers = keepers
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._url = f"http://{loaded.reachable_host}:{place.port}"

    async def run(self) -> int:
        """Runs until a signal: the first drains, the second kills. Raises HopelessError."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(signum, lambda: (self._hurry if self._stop.is_set() else self._stop).set())
        hopeless: HopelessError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(keeper.keep()) for keeper in self._keepers]
                tasks.append(group.create_task(self._announce()))
                await self._stop.wait()
                for task in tasks:
                    task.cancel()
        except* HopelessError as errors:
            hopeless = next(error for error in errors.exceptions if isinstance(error, HopelessError))
        await self._drain()
        if hopeless is not None:
            raise hopeless
        return 1 if self._hurry.is_set() else 0

    async def _announce(self) -> None:
        patience_ends = asyncio.get_running_loop().time() + _PATIENCE_S
        while not (all(keeper.is_healthy.is_set() for keeper in self._keepers) and await probe.succeeds("GET", f"{self._url}/healthz")):
            await asyncio.sleep(_POLL_S)
            if asyncio.get_running_loop().time() > patience_ends:
                patience_ends += _PATIENCE_S
                log.warning("still_starting", waiting_for=[keeper.name for keeper in self._keepers if not keeper.is_healthy.is_set()])
        print(welcome(self._url, self._settings, self._place), flush=True)

    async def _drain(self) -> None:
        log.info("draining", seconds=self._settings.drain_s)
        # No new connections; those that are there are told to go with their next answer, and probes see a 503.
        for path in ("healthcheck/fail", "drain_listeners"):
            await probe.succeeds("POST", f"http://admin/{path}", self._place.admin_socket)
        for keeper in self._keepers:
            await keeper.stop(self._settings.drain_s + _LEAVE_S, self._hurry)


def welcome(url: str, loaded: UpSettings, place: Place) -> str:
    """What a person wants to know once the gateway runs."""
    key = " -H 'authorization: Bearer YOUR_KEY'" if loaded.demands_key else ""
    lines = [
        f"Joulegate is ready at {url}/v1. Try it:",
        "",
        f"  curl {url}/v1/chat/completions{key} -H 'content-type: application/json' \\",
        """    -d '{"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}'""",
        "",
        f"  data     {loaded.data_dir.absolute()}",
        f"  sockets  {place.runtime_dir}",
        *(f"  metrics  http://127.0.0.1:{port}/metrics ({name})" for name, port in place.metrics_ports.items()),
    ]
    return "\n".join(lines)
