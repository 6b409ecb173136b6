"""Which processes a gateway consists of, and what each is told. Pure."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from services.up import edge, probe
from services.up.settings import UpSettings

# In the order in which they may leave: nobody loses a service that it still needs.
SERVICES: Final = ("router", "dispatch", "cache", "ledger")
ONE_PROCESS: Final = ("all",)
# Where chat requests reach the router.
ROUTER_HTTP: Final = "router-http"
# In the order of their metrics ports, which is documented.
MEASURED: Final = ("router", "cache", "dispatch", "ledger")

ServiceCommand = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    is_healthy: Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Place:
    """What this start was given by the machine."""

    runtime_dir: Path
    port: int
    metrics_ports: Mapping[str, int]
    """By the name of the process; empty when nothing is to be measured."""

    @property
    def admin_socket(self) -> Path:
        return self.runtime_dir / "envoy-admin.sock"

    def socket(self, process: str) -> Path:
        return self.runtime_dir / f"{process}.sock"


def process_of(service: str, one_process: bool) -> str:
    """The process that a service runs in."""
    return ONE_PROCESS[0] if one_process else service


def service_children(
    settings: UpSettings, environment: Mapping[str, str], place: Place, one_process: bool, command: ServiceCommand
) -> list[Child]:
    """The processes behind Envoy, in the order in which they are to be stopped."""
    shared = {name: value for name, value in environment.items() if name not in ("GRPC_LISTEN", "HTTP_LISTEN", "METRICS_LISTEN")}
    shared |= {"JOULEGATE_DATA_DIR": str(settings.data_dir.absolute()), "DRAIN_SECONDS": f"{settings.drain_s:g}"}
    for service in SERVICES:
        shared[f"{service.upper()}_ADDRESS"] = f"unix:{place.socket(process_of(service, one_process))}"
    children = []
    for name in ONE_PROCESS if one_process else SERVICES:
        own = {"METRICS_LISTEN": f"127.0.0.1:{place.metrics_ports[name]}"} if name in place.metrics_ports else {}
        if name == process_of("router", one_process):
            own["HTTP_LISTEN"] = f"unix:{place.socket(ROUTER_HTTP)}"
        is_healthy = partial(probe.is_serving, f"unix:{place.socket(name)}")
        children.append(Child(name, tuple(command(name)), shared | own, is_healthy))
    return children


def envoy_config(settings: UpSettings, place: Place, one_process: bool) -> edge.Edge:
    """What Envoy is to be."""
    sockets = {service: place.socket(process_of(service, one_process)) for service in SERVICES}
    sockets[ROUTER_HTTP] = place.socket(ROUTER_HTTP)
    return edge.Edge(
        place.runtime_dir, settings.host, place.port, place.admin_socket, "sockets", cors_origins=settings.cors_origins, sockets=sockets
    )


def envoy_child(command: Sequence[str], environment: Mapping[str, str], place: Place) -> Child:
    """Envoy itself; healthy as soon as it listens."""
    is_healthy = partial(probe.succeeds, "GET", "http://admin/ready", place.admin_socket)
    return Child("envoy", tuple(command), environment, is_healthy)
