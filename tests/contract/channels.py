"""The three kinds of channel under generated stubs, so that one suite runs on all of them."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from joulegate.session.v1 import session_service_pb2_grpc
from services.runtime import interceptors
from services.runtime.local import LocalChannel
from services.runtime.mesh import LocalMesh, Mesh
from services.runtime.registry import Registry
from services.runtime.session import SessionChannel, SessionServicer
from services.runtime.tracing import Tracing

KINDS = ("grpc", "session", "local")
Register = Callable[[Registry], Any]


def new_mesh() -> LocalMesh:
    """A mesh whose services are all in this process."""
    return LocalMesh(Registry(interceptors.guard), Tracing())


@asynccontextmanager
async def serve(mesh: Mesh, kind: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel of the given kind to whatever is registered in the mesh."""
    registry = mesh.registry
    if kind == "local":
        yield LocalChannel(registry)
        return
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(SessionServicer(registry, mesh.draining), registry)
    with tempfile.TemporaryDirectory(prefix="jg-") as folder:
        address = f"unix:{Path(folder) / 's.sock'}"
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((registry.generic_handler(),))
        server.add_insecure_port(address)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(address) as plain:
                if kind == "grpc":
                    yield plain
                    return
                async with SessionChannel(plain) as session:
                    yield session
        finally:
            await server.stop(None)
