"""Reserve and settle on one router's stream, as fast as asked: how long a grant takes, with leases and without.

    python bench/reserve.py [--rate 1000] [--seconds 10]

Starts a ledger of its own on a new SQLite file, makes a budget for everybody and a limit on requests, and offers requests at an even rate, whatever the
answers do. A round trip is from the intent with wishes to its grant. Under a lease a request waits for nobody, and its intent's acknowledgement, which
comes beside the call of the provider, is what is timed.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import grpc

from joulegate.ledger.v1 import admin_service_pb2 as admin_pb
from joulegate.ledger.v1 import admin_service_pb2_grpc, budget_pb2, entry_pb2, ledger_service_pb2_grpc
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1 import reservation_pb2 as reservation_pb

ADMIN = (("authorization", "Bearer bench"),)
HELD = reservation_pb.Amounts(nano_usd=650_000, tokens=140, microjoules=10**9, micrograms=10**6)


class Router:
    """One stream, on which requests are asked for and settled."""

    def __init__(self, call):
        self._call = call
        self._asked: dict[str, tuple[float, asyncio.Future]] = {}
        self._out: list = []
        self._wake = asyncio.Event()
        self.took: list[float] = []
        self.denied = 0

    async def write(self):
        while True:
            await self._wake.wait()
            self._wake.clear()
            records, self._out = self._out, []
            await self._call.write(
                pb.BookRequest(
                    intents=[each for each in records if isinstance(each, pb.Intent)],
                    settlements=[each for each in records if isinstance(each, pb.Settlement)],
                )
            )

    async def read(self):
        while (response := await self._call.read()) is not grpc.aio.EOF:
            now = time.perf_counter()
            self.denied += len(response.denials)
            for answer in (*response.grants, *response.intent_acks):
                asked_at, future = self._asked.pop(answer.request_id)
                self.took.append(now - asked_at)
                future.set_result(answer)

    def send(self, record):
        self._out.append(record)
        self._wake.set()

    async def request(self, number: int, lease_id: str):
        intent = pb.Intent(
            request_id=f"b{number}-{lease_id}",
            key_id="bench",
            provider="openai",
            model="gpt-4o",
            estimated_input_tokens=100,
            max_output_tokens=40,
        )
        intent.create_time.GetCurrentTime()
        if lease_id:
            intent.lease_id = lease_id
            intent.held.CopyFrom(HELD)
        else:
            intent.wishes.targets.add(provider="openai", model="gpt-4o")
            intent.wishes.call_count = 2
        future = asyncio.get_running_loop().create_future()
        self._asked[intent.request_id] = (time.perf_counter(), future)
        self.send(intent)
        await future
        settlement = pb.Settlement(request_id=intent.request_id, create_time=intent.create_time, key_id="bench", requested_model="auto")
        tokens = entry_pb2.TokenCounts(input_tokens=100, output_tokens=40)
        settlement.attempts.add(attempt=1, provider="openai", model="gpt-4o", outcome=entry_pb2.OUTCOME_FINISHED, tokens=tokens)
        self.send(settlement)


async def offer(stub, name: str, rate: float, seconds: float, lease_id: str = "") -> tuple[str, list[float], int]:
    call = stub.Book()
    await call.write(pb.BookRequest(hello=pb.Hello(router_id=name)))
    await call.read()
    router = Router(call)
    work = [asyncio.create_task(router.read()), asyncio.create_task(router.write())]
    running: set[asyncio.Task] = set()
    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        if (wait := began + number / rate - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(router.request(number, lease_id))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.wait(running or {asyncio.create_task(asyncio.sleep(0))}, timeout=10)
    for each in work:
        each.cancel()
    call.cancel()
    return name, sorted(router.took), router.denied


def cpu_s(pid: int) -> float:
    """What a process has taken of CPUs so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def main(rate: float, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{folder}/ledger.sock"
        environment = {
            **os.environ,
            "JOULEGATE_DATA_DIR": folder,
            "GRPC_LISTEN": address,
            "ADMIN_API_KEY": "bench",
            "RATE_LIMIT_REQUESTS_PER_MINUTE": "1000000",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        ledger = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.ledger", env=environment, stdout=asyncio.subprocess.DEVNULL, cwd=Path(__file__).parents[1]
        )
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                await asyncio.wait_for(channel.channel_ready(), 90)
                admin = admin_service_pb2_grpc.AdminServiceStub(channel)
                budget = budget_pb2.Budget(
                    scope=budget_pb2.BUDGET_SCOPE_GLOBAL,
                    measure=budget_pb2.BUDGET_MEASURE_USD,
                    window=budget_pb2.BUDGET_WINDOW_MONTH,
                    limit=10**15,
                )
                await admin.CreateBudget(admin_pb.CreateBudgetRequest(budget=budget), metadata=ADMIN)
                stub = ledger_service_pb2_grpc.LedgerServiceStub(channel)
                await offer(stub, "warm", rate / 4, 1)
                for name, lease_id in (("reserve", ""), ("lease", "unlimited")):
                    before = cpu_s(ledger.pid)
                    _, took, denied = await offer(stub, name, rate, seconds, lease_id)
                    each_us = (cpu_s(ledger.pid) - before) / max(1, len(took)) * 1e6
                    p50, p99 = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
                    print(
                        f"{name}: {len(took)} of {int(rate * seconds)} granted, {denied} denied, p50 {p50:.2f} ms, p99 {p99:.2f} ms, ledger {each_us:.0f} us of CPU each"
                    )
        finally:
            ledger.send_signal(signal.SIGTERM)
            await ledger.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    asyncio.run(main(given.rate, given.seconds))
