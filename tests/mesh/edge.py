"""A running Envoy of one's own in front of scripted services."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx

from services.up import edge
from tests.fakes.edge_services import SERVICES, ChatAnswer, FakeMesh, fake_mesh

ENVOY = str(Path(sys.executable).with_name("envoy"))


@dataclass(frozen=True, slots=True)
class RunningEdge:
    """Envoy, the services behind it, a client in front of it, and what it wrote."""

    mesh: FakeMesh
    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    log: Path

    def answer(self, *answers: ChatAnswer) -> None:
        self.mesh.openai.answers.extend(answers)


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Waits until `check` holds, 20 seconds at most."""
    async with asyncio.timeout(30):
        while not await check():
            await asyncio.sleep(0.01)


async def has_status(http: httpx.AsyncClient, path: str, status: int) -> bool:
    try:
        return (await http.get(path)).status_code == status
    except httpx.TransportError:
        return False


async def public_port(admin_socket: Path) -> int:
    """The port that Envoy chose for its only listener."""
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(admin_socket)), base_url="http://admin") as admin:
        await eventually(lambda: has_status(admin, "/ready", 200))
        listeners = (await admin.get("/listeners?format=json")).json()["listener_statuses"]
    return int(listeners[0]["local_address"]["socket_address"]["port_value"])


@asynccontextmanager
async def running_edge(cors_origins: tuple[str, ...]) -> AsyncIterator[RunningEdge]:
    with tempfile.TemporaryDirectory(prefix="edge-") as name:
        folder = Path(name)
        async with fake_mesh(folder) as mesh:
            sockets = {service: mesh.socket(service) for service in (*SERVICES, "router-http")}
            here = edge.Edge(folder, "127.0.0.1", 0, folder / "admin.sock", "sockets", cors_origins, sockets)
            with (folder / "log").open("wb") as log:
                process = await asyncio.create_subprocess_exec(*edge.command(ENVOY, edge.write(here, folder), 1), stdout=log, stderr=log)
            try:
                address = f"127.0.0.1:{await public_port(here.admin_socket)}"
                client = httpx.AsyncClient(base_url=f"http://{address}", timeout=20)
                async with client as http, grpc.aio.insecure_channel(address) as channel:
                    await eventually(lambda: has_status(http, "/healthz", 200))
                    yield RunningEdge(mesh, http, channel, folder / "log")
            finally:
                process.terminate()
                await process.wait()
