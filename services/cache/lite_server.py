"""Milvus Lite in this process, served on a private Unix socket.

pymilvus can start it by itself when it is given a path, but then on a TCP port that every user of the machine may read, it keeps the
server until the interpreter ends, and a folder that another process owns gives no more than "Open local milvus failed".
"""

import fcntl
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc

# One thread talks to it.
_WORKERS = 1
_STOP_S = 5.0
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # pymilvus pings every 10 s whether there are calls or not; gRPC's own limits would take that for an attack and hang up.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]


class StoreInUseError(Exception):
    """Another process owns the folder."""


class StoreRefusalError(Exception):
    """Milvus Lite did not take what it was given."""


def check_unowned(path: Path) -> None:
    """Raises StoreInUseError when a process holds the folder of an embedded store. Takes nothing itself."""
    # Milvus Lite's own lock file: asking it costs nothing, while importing Milvus to be refused costs a second.
    try:
        lock = (path / "LOCK").open("rb")
    except FileNotFoundError:
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreInUseError(f"{path} is in use by another cache process; several caches need MILVUS_URI") from error


class LiteServer:
    """Runs from construction to `close`. Blocks."""

    def __init__(self, path: Path) -> None:
        # Imported here, in the store's thread: it takes a second and 130 MB.
        from milvus_lite import MilvusLite
        from milvus_lite.adapter.grpc.servicer import MilvusServicer
        from pymilvus.grpc_gen.milvus_pb2_grpc import MilvusServiceStub, add_MilvusServiceServicer_to_server

        check_unowned(path)
        with ExitStack() as stack:
            database = MilvusLite(str(path))
            stack.callback(database.close)
            # A private folder: the socket is as safe as the files that it leads to.
            socket_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="joulegate-cache-", ignore_cleanup_errors=True))
            self.uri = f"unix:{socket_dir}/milvus"
            workers = stack.enter_context(ThreadPoolExecutor(_WORKERS, thread_name_prefix="milvus-lite"))
            server = grpc.server(workers, options=_OPTIONS)
            add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
            server.add_insecure_port(self.uri)
            server.start()
            stack.callback(lambda: server.stop(_STOP_S).wait(_STOP_S))
            channel = stack.enter_context(grpc.insecure_channel(self.uri, options=_OPTIONS))
            self._stub = MilvusServiceStub(channel)
            self._resources = stack.pop_all()

    def upsert(self, request: Any, timeout_s: float) -> None:
        """Carries out an UpsertRequest. Raises StoreRefusalError, and grpc.RpcError."""
        status = self._stub.Upsert(request, timeout=timeout_s).status
        if status.code:
            raise StoreRefusalError(f"upsert: {status.reason}")

    def close(self) -> None:
        """Stops the server and its threads, and gives the folder free."""
        self._resources.close()
