"""What every process measures of its calls, and the Prometheus listener that shows it."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Histogram, start_http_server

from services.runtime.settings import host_and_port

CALLS = Counter("joulegate_rpc_server_handled", "Calls handled, by method and gRPC status.", ["method", "code"])
CALL_SECONDS = Histogram(
    "joulegate_rpc_server_seconds",
    "From a call's arrival to its end.",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)


@contextmanager
def listener(address: str | None) -> Iterator[str | None]:
    """Serves /metrics on `host:port` while entered; gives the address that was bound (port 0 takes any). None: no listener."""
    if address is None:
        yield None
        return
    host, port = host_and_port(address)
    server, thread = start_http_server(port, addr=host)
    try:
        yield f"{address.rpartition(':')[0]}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
