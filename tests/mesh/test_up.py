"""`joulegate up` as its user meets it: real processes and signals, the real Envoy, scripted services."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

PATIENCE_S = 30


@dataclass(slots=True)
class Up:
    """The process `up` and what it has written so far."""

    process: asyncio.subprocess.Process
    data_dir: Path
    text: str = ""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.text += line.decode()
            self._news.set()

    async def says(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Waits until the pattern was written so often; gives its last match."""
        async with asyncio.timeout(PATIENCE_S):
            while len(found := list(re.finditer(pattern, self.text))) < times:
                self._news.clear()
                await self._news.wait()
        return found[-1]

    def events(self, name: str) -> list[dict[str, Any]]:
        entries = [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == name and entry["service"] == "up"]

    @property
    def pids(self) -> dict[str, int]:
        """The newest process of each child."""
        return {entry["child"]: entry["pid"] for entry in self.events("child_started")}

    async def ready_url(self) -> str:
        return (await self.says(r"ready at (\S+)/v1\."))[1]

    async def ends(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


@asynccontextmanager
async def up(data_dir: Path, *arguments: str, **environment: str) -> AsyncIterator[Up]:
    """Starts `up`; whatever is left of it in the end is killed."""
    own = {"JOULEGATE_DATA_DIR": str(data_dir), "PORT": "0", "METRICS_PORT": "0", "DRAIN_SECONDS": "20"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.edge_services", "up", *arguments),
        env=os.environ | own | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    running = Up(process, data_dir)
    listening = asyncio.create_task(running.listen())
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await listening


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


async def eventually(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not check():
            await asyncio.sleep(0.01)


def mode(folder: Path) -> int | None:
    """Who may enter a folder; None when there is none."""
    return folder.stat().st_mode & 0o777 if folder.exists() else None


def is_open(url: httpx.URL) -> bool:
    try:
        socket.create_connection((url.host, url.port or 0)).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(
    ("arguments", "children"),
    [((), {"router", "dispatch", "cache", "ledger", "envoy"}), (("--one-process",), {"all", "envoy"})],
    ids=["mesh", "one-process"],
)
async def test_start_serve_and_stop_leave_nothing_behind(tmp_path: Path, arguments: tuple[str, ...], children: set[str]) -> None:
    async with up(tmp_path, *arguments) as gateway:
        url = await gateway.ready_url()
        sockets = Path((await gateway.says(r"sockets +(\S+)"))[1])
        await gateway.says("metrics +http://127.0.0.1:", times=len(children) - 1)
        assert gateway.pids.keys() == children
        assert mode(sockets) == 0o700
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/v1/models")).status_code == 200
            assert (await http.get("/api/admin/entries")).status_code == 501  # reached the ledger, which has no script
        gateway.process.terminate()
        assert await gateway.ends() == 0
        assert not [pid for pid in gateway.pids.values() if is_alive(pid)]
        assert mode(sockets) is None
        stopped = [entry["child"] for entry in gateway.events("child_stopped")]
        assert stopped == [name for name in ("router", "dispatch", "cache", "ledger", "all", "envoy") if name in children]


async def test_killed_service_comes_back(tmp_path: Path) -> None:
    async with up(tmp_path) as gateway:
        async with httpx.AsyncClient(base_url=await gateway.ready_url()) as http:
            for name in ("router", "envoy"):
                killed = gateway.pids[name]
                os.kill(killed, signal.SIGKILL)
                await gateway.says(rf'"child": ?"{name}", ?"pid"', times=2)
                assert gateway.pids[name] != killed

                async def serves() -> bool:
                    try:
                        return (await http.get("/v1/models")).status_code == 200
                    except httpx.TransportError:
                        return False

                async with asyncio.timeout(PATIENCE_S):
                    while not await serves():
                        await asyncio.sleep(0.01)
        assert [(entry["child"], entry["code"]) for entry in gateway.events("child_ended")] == [("router", -9), ("envoy", -9)]


async def test_running_streams_finish_before_the_services_go(tmp_path: Path) -> None:
    async with up(tmp_path) as gateway:
        url = httpx.URL(await gateway.ready_url())
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as http, http.stream("POST", "/v1/chat/completions") as response:
            chunks = response.aiter_bytes()
            assert await anext(chunks) == b"data: first\n\n"
            gateway.process.send_signal(signal.SIGHUP)
            await eventually(lambda: not is_open(url))
            (tmp_path / "finish").touch()
            assert [chunk async for chunk in chunks] == [b"data: last\n\n"]
        assert await gateway.ends() == 0
        assert not gateway.events("child_killed")


async def test_second_signal_kills(tmp_path: Path) -> None:
    async with up(tmp_path) as gateway:
        url = await gateway.ready_url()
        async with httpx.AsyncClient(base_url=url) as http, http.stream("POST", "/v1/chat/completions") as response:
            await anext(response.aiter_bytes())
            gateway.process.terminate()
            await gateway.says('"event": ?"draining"')
            gateway.process.send_signal(signal.SIGINT)
            assert await gateway.ends() == 1
        assert not [pid for pid in gateway.pids.values() if is_alive(pid)]


async def test_killed_up_leaves_no_orphans(tmp_path: Path) -> None:
    async with up(tmp_path) as gateway:
        await gateway.ready_url()
        gateway.process.kill()
        await gateway.ends()
        assert len(gateway.pids) == 5
        for pid in gateway.pids.values():
            await eventually(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]


async def test_data_folder_serves_one_gateway_at_a_time(tmp_path: Path) -> None:
    async with up(tmp_path) as first:
        await first.ready_url()
        async with up(tmp_path) as second:
            assert await second.ends() == 1
        assert f"another Joulegate uses the data folder {tmp_path}" in second.text
        assert len(second.text.splitlines()) == 1


async def test_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        async with up(tmp_path, PORT=str(port)) as gateway:
            assert await gateway.ends() == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in gateway.text


async def test_two_gateways_do_not_meet(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy: Mapping[str, str] = {"METRICS_PORT": str(min(server.getsockname()[1], 65532))}
        async with AsyncExitStack() as stack:
            gateways = [await stack.enter_async_context(up(tmp_path / name, **busy)) for name in ("one", "two")]
            urls = [await gateway.ready_url() for gateway in gateways]
            assert urls[0] != urls[1]
            for gateway in gateways:
                assert gateway.events("metrics_port_taken")
                gateway.process.terminate()
            assert [await gateway.ends() for gateway in gateways] == [0, 0]


async def test_service_that_never_starts_ends_the_gateway_with_its_last_words(tmp_path: Path) -> None:
    async with up(tmp_path, "--one-process", FAKE_BROKEN="1") as gateway:
        assert await gateway.ends() == 1
    assert "all does not start (exit code 1). Its last words:\nall is broken" in gateway.text
    assert not is_alive(gateway.pids["envoy"])


async def test_wrong_settings_are_told_together(tmp_path: Path) -> None:
    async with up(tmp_path, PORT="high", HOST="example.com", CORS_ORIGINS="example.com") as gateway:
        assert await gateway.ends() == 2
    assert all(name in gateway.text for name in ("PORT='high'", "HOST='example.com'", "CORS_ORIGINS='example.com'"))
