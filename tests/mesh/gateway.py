"""The real gateway as its users run it: `joulegate up`, the real Envoy, real services, fake providers."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx

from joulegate.ledger.v1 import ledger_service_pb2, ledger_service_pb2_grpc

PATIENCE_S = 60
# Those that run now: what they wrote last is shown beside a test that fails.
RUNNING: list["Gateway"] = []
ADMIN_KEY = "admin-key-of-the-tests"
ONE_PROCESS = "one-process"
PROCESSES = "processes"


@dataclass(slots=True)
class Gateway:
    """A running `joulegate up` and what it has written so far."""

    process: asyncio.subprocess.Process
    url: str = ""
    text: str = field(default="", repr=False)
    _is_silent: bool = field(default=False, repr=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.text += line.decode()
            self._news.set()
        self._is_silent = True
        self._news.set()

    async def says(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Waits until the pattern was written so often; gives its last match. What was written instead is shown when it never is."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while len(found := list(re.finditer(pattern, self.text))) < times:
                    assert not self._is_silent, f"ended without saying {pattern!r}:\n{self.text[-4000:]}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"does not say {pattern!r}:\n{self.text[-4000:]}") from None
        return found[-1]

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def pids(self) -> dict[str, int]:
        """The newest process of each child: router, cache, dispatch, ledger, envoy; or all, envoy."""
        return {entry["child"]: entry["pid"] for entry in self.events("child_started")}

    def events(self, name: str) -> list[dict[str, Any]]:
        """What `up` itself has logged under that name."""
        entries = [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == name and entry.get("service") == "up"]

    @property
    def sockets(self) -> Path:
        """The folder of the services' Unix sockets."""
        found = re.search(r"sockets +(\S+)", self.text)
        assert found is not None
        return Path(found[1])

    def admin(self) -> httpx.AsyncClient:
        """An operator's client."""
        return httpx.AsyncClient(base_url=self.url, timeout=30, headers={"authorization": f"Bearer {ADMIN_KEY}"})

    async def entries(self, request_id: str = "") -> list[dict[str, Any]]:
        """All rows of the books, newest first, or those of one request. Integers are integers."""
        rows: list[dict[str, Any]] = []
        token = ""
        async with self.admin() as http:
            while True:
                parameters: Mapping[str, str] = {"page_size": "1000", "page_token": token, "request_id": request_id}
                response = await http.get("/api/admin/entries", params=parameters)
                page = response.raise_for_status().json()
                rows += [_with_integers(row) for row in page["entries"]]
                token = page["next_page_token"]
                if not token:
                    return rows

    async def totals(self) -> ledger_service_pb2.Totals:
        """The sums over the books, as the ledger itself says them."""
        socket = self.sockets / ("ledger.sock" if "ledger" in self.pids else "all.sock")
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            stub = ledger_service_pb2_grpc.LedgerServiceStub(channel)
            return (await stub.GetTotals(ledger_service_pb2.GetTotalsRequest(), timeout=30, wait_for_ready=True)).totals

    async def settled_entries(self, request_id: str, count: int = 1) -> list[dict[str, Any]]:
        """The rows of a request, once there are so many: a hit and a lost client are booked just after their end."""
        async with asyncio.timeout(PATIENCE_S):
            while len(rows := await self.entries(request_id)) < count:
                await asyncio.sleep(0.02)
        return rows


def _with_integers(row: Mapping[str, Any]) -> dict[str, Any]:
    """Proto JSON writes 64-bit integers as strings."""
    return {key: int(value) if isinstance(value, str) and re.fullmatch(r"-?\d+", value) else value for key, value in row.items()}


def provider_table(name: str, base_url: str, models: Sequence[str], patience_s: float = 30) -> str:
    """A provider of joulegate.toml that is waited for longer than a busy machine stalls, or as long as a test can wait for."""
    timeouts = f"connect = {patience_s}, first_byte = {patience_s}, idle = {patience_s}, total = {2 * patience_s}"
    return (
        f'[providers.{name}]\nkind = "openai"\nbase_url = "{base_url}"\nmodels = {json.dumps(list(models))}\ntimeouts = {{ {timeouts} }}\n'
    )


@asynccontextmanager
async def running(folder: Path, mode: str, tables: str, **environment: str) -> AsyncIterator[Gateway]:
    """Starts the gateway on a free port with this joulegate.toml, waits until it is ready, and kills what is left of it in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "joulegate.toml"
    config.write_text(tables, encoding="utf-8")
    own = {
        "HOST": "127.0.0.1",
        "PORT": "0",
        "METRICS_PORT": "0",
        "DRAIN_SECONDS": "5",
        "JOULEGATE_DATA_DIR": str(folder / "data"),
        "JOULEGATE_CONFIG": str(config),
        "ADMIN_API_KEY": ADMIN_KEY,
        # Whether an Ollama runs on this machine must not matter.
        "ENABLE_OLLAMA": "false",
    }
    arguments = ["--one-process"] if mode == ONE_PROCESS else []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "up", *arguments),
        env=os.environ | own | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=16 * 1024 * 1024,
    )
    gateway = Gateway(process)
    listening = asyncio.create_task(gateway.listen())
    RUNNING.append(gateway)
    try:
        gateway.url = (await gateway.says(r"ready at (\S+)/v1\."))[1]
        yield gateway
    finally:
        RUNNING.remove(gateway)
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        await listening
