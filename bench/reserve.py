"""Reserve and settle as a router does, as fast as asked: how long it is until a request may go to its provider, and until it is booked.

    python bench/reserve.py [--rate 1000] [--seconds 10] [--answer-ms 0]

Starts a ledger of its own on a new SQLite file, makes a budget for everybody and a limit on requests, and offers requests at an even rate, whatever the
answers do. They go through the router's own books and reservations: `asked` has the ledger asked for each of them, with `leased` it is asked as a router asks,
for an allowance now and then. Before them the same is asked of a ledger that books nothing (echo_ledger.py): `echo` is the way there and back, and `synced`
has the disk in it. Between the two ends stands a provider that takes `--answer-ms`: the longer it takes, the more requests are under
way at once, and the longer each message waits for their company.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import grpc
import uvloop
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import REGISTRY

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.receipt_pb2 import CacheStatus
from joulegate.ledger.v1 import admin_service_pb2 as admin_pb
from joulegate.ledger.v1 import admin_service_pb2_grpc, budget_pb2, entry_pb2, ledger_service_pb2_grpc
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1.reservation_pb2 import Grant
from services.router.books import Books, open_books
from services.router.controls import CacheControls
from services.router.leases import Accounts
from services.router.question import Question
from services.router.reservations import Admitted, Reservations, open_reservations
from services.router.settlement import settlement_of
from services.runtime.clock import SystemClock
from services.runtime.identity import Caller

ADMIN = (("authorization", "Bearer bench"),)
TARGETS = [("openai", "gpt-4o")]
REQUEST = chat_pb2.ChatRequest(
    model="gpt-4o",
    max_tokens=40,
    messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text="What does it take to lift an apple by a metre? " * 8)],
)
CALLER = Caller(key_id="bench", tenant="bench")


class Load(NamedTuple):
    """Requests a second, for so long, and how long a provider takes for each."""

    rate: float
    seconds: float
    answer_s: float

    @property
    def warming(self) -> "Load":
        return Load(self.rate / 4, 1, 0.0)


class Times:
    """What requests waited for, in seconds."""

    def __init__(self) -> None:
        self.admitted: list[float] = []
        self.settled: list[float] = []


def question(request_id: str) -> Question:
    return Question(request_id, REQUEST, "auto", cache_pb.EntryKey(), CALLER, CacheControls(), (), (), time.monotonic(), 60.0)


async def asked(books: Books, request_id: str) -> tuple[Question, Timestamp]:
    """Asks the ledger for one request, as a router without a lease does."""
    each = question(request_id)
    intent = pb.Intent(
        request_id=request_id, key_id=CALLER.key_id, provider="openai", model="gpt-4o", estimated_input_tokens=100, max_output_tokens=40
    )
    intent.create_time.GetCurrentTime()
    intent.wishes.targets.add(provider="openai", model="gpt-4o")
    intent.wishes.call_count = 2
    grant = await books.answered(books.intend(intent))
    if not isinstance(grant, Grant):
        raise RuntimeError(grant.message)
    return each, intent.create_time


async def leased(reservations: Reservations, request_id: str) -> tuple[Question, Timestamp]:
    """Lets a request in as a router does."""
    each = question(request_id)
    admitted = await reservations.admit(each, TARGETS)
    assert isinstance(admitted, Admitted)
    return each, admitted.create_time


LetIn = Callable[[str], Awaitable[tuple[Question, Timestamp]]]


async def request(books: Books, let_in: LetIn, request_id: str, answer_s: float, times: Times) -> None:
    began = time.perf_counter()
    each, create_time = await let_in(request_id)
    times.admitted.append(time.perf_counter() - began)
    if answer_s:
        await asyncio.sleep(answer_s)
    tokens = entry_pb2.TokenCounts(input_tokens=100, output_tokens=40)
    began = time.perf_counter()
    settlement = settlement_of(each, create_time, CacheStatus.CACHE_STATUS_MISS)
    settlement.attempts.add(attempt=1, provider="openai", model="gpt-4o", outcome=entry_pb2.OUTCOME_FINISHED, tokens=tokens)
    await books.settle(settlement)
    times.settled.append(time.perf_counter() - began)


async def offer(name: str, books: Books, let_in: LetIn, load: Load) -> Times:
    times, waiting, began = Times(), set(), time.perf_counter()
    for number in range(int(load.rate * load.seconds)):
        if (wait := began + number / load.rate - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(request(books, let_in, f"{name}{number}", load.answer_s, times))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
    if waiting:
        await asyncio.wait(waiting, timeout=10)
    return times


def cpu_s(pid: int) -> float:
    """What a process has taken of CPUs so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def let_in_by_lease() -> float:
    return REGISTRY.get_sample_value("joulegate_router_admissions_total", {"result": "lease"}) or 0.0


def spread(seconds: list[float]) -> str:
    p50, p99 = (sorted(seconds)[int(len(seconds) * share)] * 1000 for share in (0.5, 0.99))
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


async def measured(name: str, pid: int, books: Books, let_in: LetIn, load: Load) -> Times:
    """Offers requests for the time of a round, and prints what they took."""
    ledger, router, by_lease = cpu_s(pid), time.process_time(), let_in_by_lease()
    times = await offer(name, books, let_in, load)
    count = max(1, len(times.settled))
    ledger_us, router_us = ((after - before) / count * 1e6 for after, before in ((cpu_s(pid), ledger), (time.process_time(), router)))
    print(
        f"{name}: {len(times.settled)} of {int(load.rate * load.seconds)} booked; let in {spread(times.admitted)}; "
        f"booked {spread(times.settled)}; ledger {ledger_us:.0f} us, router {router_us:.0f} us of CPU each; "
        f"{let_in_by_lease() - by_lease:.0f} under a lease"
    )
    return times


async def echoed(name: str, folder: str, load: Load, *file: str) -> Times:
    """What it takes where nothing is booked."""
    address = f"unix:{folder}/{name}.sock"
    async with (
        running(str(Path(__file__).with_name("echo_ledger.py")), address, *file) as pid,
        grpc.aio.insecure_channel(address) as channel,
    ):
        await asyncio.wait_for(channel.channel_ready(), 90)
        async with open_books(ledger_service_pb2_grpc.LedgerServiceStub(channel), "bench", 10) as books:
            await books.ready()
            await offer("warm", books, partial(asked, books), load.warming)
            return await measured(name, pid, books, partial(asked, books), load)


async def booked(folder: str, load: Load, floors: Mapping[str, Times]) -> None:
    """What it takes a ledger, and how many times what it takes where nothing is booked."""
    address = f"unix:{folder}/ledger.sock"
    environment = {
        "JOULEGATE_DATA_DIR": folder,
        "GRPC_LISTEN": address,
        "ADMIN_API_KEY": "bench",
        "RATE_LIMIT_REQUESTS_PER_MINUTE": "1000000",
    }
    async with running("-m", "services.ledger", **environment) as pid, grpc.aio.insecure_channel(address) as channel:
        await asyncio.wait_for(channel.channel_ready(), 90)
        budget = budget_pb2.Budget(
            scope=budget_pb2.BUDGET_SCOPE_GLOBAL,
            measure=budget_pb2.BUDGET_MEASURE_USD,
            window=budget_pb2.BUDGET_WINDOW_MONTH,
            limit=10**15,
        )
        admin = admin_service_pb2_grpc.AdminServiceStub(channel)
        await admin.CreateBudget(admin_pb.CreateBudgetRequest(budget=budget), metadata=ADMIN)
        accounts = Accounts()
        async with (
            open_books(ledger_service_pb2_grpc.LedgerServiceStub(channel), "bench", 10, accounts.revoke) as books,
            open_reservations(books, accounts, SystemClock()) as reservations,
        ):
            await books.ready()
            await offer("warm", books, partial(asked, books), load.warming)
            times = await measured("asked", pid, books, partial(asked, books), load)
            for name, floor in floors.items():
                print(f"  booked in {median(times.settled) / median(floor.settled):.1f} times the median of {name}")
            await measured("leased", pid, books, partial(leased, reservations), load)


@asynccontextmanager
async def running(*arguments: str, **environment: str) -> AsyncIterator[int]:
    """A Python process, and its number."""
    path = os.pathsep.join(path for path in sys.path if path)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, **environment, "PYTHONPATH": path},
        stdout=asyncio.subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
    )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def main(load: Load) -> None:
    with tempfile.TemporaryDirectory() as folder:
        floors = {"echo": await echoed("echo", folder, load), "synced": await echoed("synced", folder, load, f"{folder}/log")}
        await booked(folder, load, floors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--answer-ms", type=float, default=0)
    given = parser.parse_args()
    uvloop.run(main(Load(given.rate, given.seconds, given.answer_ms / 1000)))
