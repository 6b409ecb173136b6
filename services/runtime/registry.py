"""The handlers of a process, by method path: what generated `add_…Servicer_to_server` functions fill.

The same handlers are then served by grpc.aio, by multiplexed sessions (session.py) and in process (local.py).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc

# grpc.RpcMethodHandler; its published types know only the synchronous form.
Handler = Any
Wrap = Callable[[str, Handler], Handler]


class Registry(grpc.aio.Server):
    """Stands in for a server where generated code registers a servicer. `wrap` is put around every handler, once."""

    def __init__(self, wrap: Wrap) -> None:
        self._wrap = wrap
        self._handlers: dict[str, Handler] = {}
        self._services: dict[str, None] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Ignored: generated code registers the same methods a second time below, by name."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        self._services[service_name] = None
        for name, handler in method_handlers.items():
            path = f"/{service_name}/{name}"
            self._handlers[path] = self._wrap(path, handler)

    def handler(self, path: str) -> Handler | None:
        return self._handlers.get(path)

    @property
    def services(self) -> list[str]:
        """Full proto names, in the order of registration."""
        return list(self._services)

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """All handlers, for a real server."""
        return _ByPath(self._handlers)

    # The rest of the interface is about sockets, of which a registry has none.
    def add_insecure_port(self, address: str) -> int:
        raise NotImplementedError

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        raise NotImplementedError

    async def start(self) -> None:
        raise NotImplementedError

    async def stop(self, grace: float | None) -> None:
        raise NotImplementedError

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        raise NotImplementedError


class _ByPath(grpc.GenericRpcHandler):
    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        return self._handlers.get(handler_call_details.method)
