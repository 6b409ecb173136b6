"""A history with deaths: clients on three routers with two ledgers on one PostgreSQL, any of which may be killed at any moment.

Whatever happens, no budget is overspent, nothing stays held, the sums are those of the rows, and every answer that a client has whole has
its row, once. `HISTORY_REQUESTS` says how many requests, `HISTORY_PER_DEATH` after how many of them somebody dies, on average.
"""

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from joulegate.ledger.v1 import admin_service_pb2 as pb
from joulegate.ledger.v1 import admin_service_pb2_grpc as pb_grpc
from joulegate.ledger.v1 import budget_pb2, entry_pb2, key_pb2
from tests import postgresql
from tests.fakes.openai_upstream import Call, OpenAIUpstream, Reply, completion, stream
from tests.mesh.conftest import POLICY
from tests.mesh.gateway import ADMIN_KEY, PATIENCE_S, provider_table

REQUESTS = int(os.environ.get("HISTORY_REQUESTS", "300"))
CLIENTS, ROUTERS, LEDGERS, KEYS = 64, 3, 2, 8
# One death for about so many requests.
PER_DEATH = int(os.environ.get("HISTORY_PER_DEATH", "75"))
PROMPT_TOKENS = 30
ADMIN = (("authorization", f"Bearer {ADMIN_KEY}"),)


class Fleet:
    """Processes by name, each of which can be killed and comes back at the same place."""

    def __init__(self, folder: Path, place: Any, config: Path) -> None:
        self._folder = folder
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._environment = {
            **os.environ,
            **postgresql.variables_of(place),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "JOULEGATE_CONFIG": str(config),
            "JOULEGATE_DATA_DIR": str(folder),
            "ADMIN_API_KEY": ADMIN_KEY,
            "ENABLE_OLLAMA": "false",
            "AUTH_REQUIRED": "true",
            "CACHE_ENABLED": "false",
            "LEDGER_ORPHAN_GRACE_SECONDS": "2",
            "LOG_LEVEL": "error",
            "DISPATCH_ADDRESS": self.socket("dispatch"),
            "CACHE_ADDRESS": self.socket("cache"),
        }

    def socket(self, name: str) -> str:
        return f"unix:{self._folder / name}.sock"

    async def start(self, name: str) -> None:
        service, number = name.rstrip("0123456789"), name[-1]
        own = {"GRPC_LISTEN": self.socket(name)}
        if service == "router":
            own |= {"HTTP_LISTEN": self.socket(f"http{number}"), "LEDGER_ADDRESS": self.socket(f"ledger{int(number) % LEDGERS}")}
        self._processes[name] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"services.{service}"),
            env={**self._environment, **own},
            cwd=self._folder,
            stdout=asyncio.subprocess.DEVNULL,
        )

    async def kill(self, name: str) -> None:
        """Kills it, and starts it anew."""
        process = self._processes[name]
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await self.start(name)

    async def close(self) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@asynccontextmanager
async def running(folder: Path, place: Any, config: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(folder, place, config)
    try:
        await fleet.start("dispatch")
        for name in (*(f"ledger{number}" for number in range(LEDGERS)), *(f"router{number}" for number in range(ROUTERS))):
            await fleet.start(name)
        yield fleet
    finally:
        await fleet.close()


class Admin:
    """An operator, at whichever ledger answers."""

    def __init__(self, fleet: Fleet) -> None:
        self._addresses = [fleet.socket(f"ledger{number}") for number in range(LEDGERS)]

    async def call(self, method: str, request: Any) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for address in self._addresses:
                    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                        with suppress(grpc.aio.AioRpcError):
                            return await getattr(pb_grpc.AdminServiceStub(channel), method)(request, timeout=5, metadata=ADMIN)
                await asyncio.sleep(0.1)

    async def usage(self, budget_id: str) -> budget_pb2.BudgetUsage:
        usage: budget_pb2.BudgetUsage = (await self.call("GetBudget", pb.GetBudgetRequest(budget_id=budget_id))).usage
        return usage

    async def rows(self) -> list[entry_pb2.Entry]:
        rows: list[entry_pb2.Entry] = []
        token = ""
        while True:
            page = await self.call("ListEntries", pb.ListEntriesRequest(page_size=1000, page_token=token))
            rows += page.entries
            token = page.next_page_token
            if not token:
                return rows


def reply(chance: random.Random) -> Callable[[Call], Reply]:
    """A provider that bills up to what it may, and now and then breaks off."""

    def answer(call: Call) -> Reply:
        body = call.json
        bound = body.get("max_tokens") or body.get("max_completion_tokens")
        if body.get("stream"):
            return stream("One ", "two.")
        return completion(prompt_tokens=PROMPT_TOKENS, completion_tokens=chance.randint(1, bound))

    return answer


async def ask(http: Mapping[int, aiohttp.ClientSession], chance: random.Random, keys: list[str], request_id: str) -> str:
    """Asks a router; what came of it: `whole`, a status, or `broken`."""
    is_stream = chance.random() < 0.4
    body = {"model": "small", "messages": [{"role": "user", "content": request_id}], "max_tokens": 60, "stream": is_stream}
    headers = {"authorization": f"Bearer {chance.choice(keys)}", "x-request-id": request_id, "content-type": "application/json"}
    session = http[chance.randrange(ROUTERS)]
    # Some leave.
    patience_s = chance.choice([0.05, 20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 20.0])
    try:
        async with asyncio.timeout(patience_s):
            async with session.post("http://router/v1/chat/completions", data=json.dumps(body), headers=headers) as response:
                said = await response.read()
                if response.status != 200:
                    return str(response.status)
                return "whole" if not is_stream or said.endswith(b"[DONE]\n\n") else "broken"
    except (aiohttp.ClientError, TimeoutError, OSError):
        # A router that is starting is not to be asked a thousand times meanwhile.
        await asyncio.sleep(0.05)
        return "broken"


async def new_keys(admin: Admin) -> list[str]:
    keys = []
    for number in range(KEYS):
        made = await admin.call("CreateKey", pb.CreateKeyRequest(key=key_pb2.ApiKey(name=f"k{number}", requests_per_minute=10**6)))
        keys.append(made.key_text)
    return keys


async def new_budget(admin: Admin, limit: int) -> str:
    """A budget of so many tokens a month for everybody; its id."""
    budget = budget_pb2.Budget(
        scope=budget_pb2.BUDGET_SCOPE_GLOBAL,
        measure=budget_pb2.BUDGET_MEASURE_TOKENS,
        window=budget_pb2.BUDGET_WINDOW_MONTH,
        limit=limit,
    )
    return str((await admin.call("CreateBudget", pb.CreateBudgetRequest(budget=budget))).usage.budget.budget_id)


async def sessions(fleet: Fleet, stack: AsyncExitStack) -> dict[int, aiohttp.ClientSession]:
    """A client's session with each router."""
    found = {}
    for number in range(ROUTERS):
        connector = aiohttp.UnixConnector(fleet.socket(f"http{number}").removeprefix("unix:"), limit=0)
        found[number] = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
    return found


async def test_no_death_overspends_a_budget_or_loses_an_answer(postgresql_server: postgresql.Server, tmp_path: Path) -> None:
    chance = random.Random(1)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(OpenAIUpstream())
        upstream.always = reply(random.Random(2))
        config = tmp_path / "joulegate.toml"
        config.write_text(provider_table("lab", upstream.base_url, ["small"]) + POLICY)
        # Short, for it is part of sockets' names.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jg-")))
        fleet = await stack.enter_async_context(running(folder, postgresql_server.new_database(), config))
        admin = Admin(fleet)
        keys = await new_keys(admin)
        # Enough for about two thirds.
        limit = REQUESTS * 40
        budget_id = await new_budget(admin, limit)
        http = await sessions(fleet, stack)
        outcomes: dict[str, str] = {}
        ids = iter([f"h-{number}" for number in range(REQUESTS)])

        async def client(seed: int) -> None:
            own = random.Random(seed)
            for request_id in ids:
                outcomes[request_id] = await ask(http, own, keys, request_id)

        async def death() -> None:
            done = PER_DEATH
            while True:
                await asyncio.sleep(0.02)
                if len(outcomes) >= done:
                    done += PER_DEATH
                    victim = chance.choice([f"ledger{chance.randrange(LEDGERS)}", f"router{chance.randrange(ROUTERS)}"])
                    await fleet.kill(victim)

        async def auditor() -> None:
            while True:
                usage = await admin.usage(budget_id)
                assert usage.spent + usage.held <= limit
                await asyncio.sleep(0.2)

        # Until a first answer, nobody dies: a start is not what this is about.
        async with asyncio.timeout(PATIENCE_S):
            while await ask(http, chance, keys, f"first-{chance.random()}") != "whole":
                pass
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(death()), group.create_task(auditor())]
            await asyncio.gather(*(client(seed) for seed in range(CLIENTS)))
            for task in others:
                task.cancel()
        async with asyncio.timeout(PATIENCE_S * 2):
            while (usage := await admin.usage(budget_id)).held:
                assert usage.spent + usage.held <= limit
                await asyncio.sleep(0.2)
        rows = await admin.rows()
    check(outcomes, rows, usage.spent, limit)


def check(outcomes: Mapping[str, str], rows: Sequence[entry_pb2.Entry], spent: int, limit: int) -> None:
    booked_as = Counter(entry_pb2.Outcome.Name(row.outcome) for row in rows)
    print(dict(Counter(outcomes.values())), dict(booked_as), f"spent {spent} of {limit}")
    assert len(outcomes) == REQUESTS
    assert spent <= limit
    assert spent == sum(row.input_tokens + row.output_tokens for row in rows)
    assert len({(row.request_id, row.attempt) for row in rows}) == len(rows)
    # A router that died before it could say how an answer ended has it booked as lost.
    ends = (entry_pb2.OUTCOME_FINISHED, entry_pb2.OUTCOME_LOST)
    booked = Counter(row.request_id.partition("~")[0] for row in rows if row.outcome in ends)
    whole = {request_id for request_id, outcome in outcomes.items() if outcome == "whole"}
    assert len(whole) > REQUESTS // 20
    assert {request_id: booked[request_id] for request_id in whole if booked[request_id] != 1} == {}
