"""Lookups in the cache service, over gRPC on a Unix socket: `python bench/cache_lookup.py [--entries 10000 100000] [--out FILE]`.

The real service with its default embedder, gate and embedded Milvus is filled with short questions and answers of 800 bytes, and is then
asked one lookup at a time: the same request, other words of a kept question, and questions that nobody asked. All entries lie in one scope,
the worst case, or in twenty. Wall-clock times need an idle machine; the service's CPU time per lookup, all its threads', bears company.
"""

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "gen")]

import grpc  # noqa: E402

from joulegate.cache.v1 import cache_service_pb2 as pb  # noqa: E402
from joulegate.cache.v1 import cache_service_pb2_grpc as pb_grpc  # noqa: E402
from joulegate.chat.v1 import chat_pb2  # noqa: E402

LOOKUPS = 2_000
ASKED = ("the same request", "other words", "unknown question")
CONCURRENT_STORES = 32
VERBS = [
    "repair",
    "paint",
    "clean",
    "move",
    "store",
    "sell",
    "weigh",
    "polish",
    "grease",
    "mount",
    "test",
    "copy",
    "print",
    "label",
    "pack",
    "ship",
    "trim",
    "bend",
    "seal",
    "cut",
]
THINGS = [
    "bicycle",
    "lamp",
    "kettle",
    "violin",
    "drawer",
    "mirror",
    "carpet",
    "helmet",
    "ladder",
    "tractor",
    "kayak",
    "telescope",
    "printer",
    "hammock",
    "statue",
]
PLACES = ["kitchen", "garage", "attic", "cellar", "garden", "office", "workshop", "library", "balcony", "barn"]
MATERIALS = ["wax", "oil", "sand", "steam", "vinegar", "chalk", "glue", "varnish", "soap", "ice"]
SEASONS = ["spring", "summer", "autumn", "winter"]


def digest(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=32).digest()


def questions(count: int, seed: int) -> list[tuple[str, str]]:
    """Different questions, each in two wordings that mean the same."""
    every = list(itertools.product(VERBS, THINGS, PLACES, MATERIALS, SEASONS))
    chosen = random.Random(seed).sample(every, min(count, len(every)))
    texts = [f"{verb} a {thing} with {material} in the {place} in {season}" for verb, thing, place, material, season in chosen]
    return [(f"How do I {text}?", f"How can I {text}?") for text in texts]


def entry(text: str) -> pb.Entry:
    message = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, text=(text + " ") * (800 // len(text)))
    choice = chat_pb2.Choice(message=message, finish_reason=chat_pb2.FINISH_REASON_STOP)
    return pb.Entry(completion=chat_pb2.ChatCompletion(id="c", model="m", choices=[choice]), provider="p", model="m", energy_microjoules=1)


def key(text: str) -> pb.EntryKey:
    return pb.EntryKey(tenant="bench", digest=digest("exact", text))


def wording(text: str, scope: int) -> pb.Wording:
    return pb.Wording(scope=digest("scope", scope), text=text)


class Service:
    def __init__(self, stub: pb_grpc.CacheServiceStub, pid: int, metrics: str) -> None:
        self.stub = stub
        self._pid = pid
        self._metrics = metrics

    def memory_bytes(self) -> int:
        with open(f"/proc/{self._pid}/smaps_rollup") as rollup:
            return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))

    def cpu_s(self) -> float:
        """User and system time so far."""
        with open(f"/proc/{self._pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def settled(self) -> None:
        """Until the store has taken everything."""
        while True:
            page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{self._metrics}/metrics").read().decode())
            if float(re.findall(r"^joulegate_cache_store_queue_length (\S+)", page, re.M)[0]) == 0:
                return
            await asyncio.sleep(1)


@asynccontextmanager
async def running(entries: int) -> AsyncIterator[Service]:
    with tempfile.TemporaryDirectory(prefix="jg-") as folder:
        environment = os.environ | {
            "JOULEGATE_DATA_DIR": folder,
            "GRPC_LISTEN": f"unix:{folder}/cache.sock",
            "METRICS_LISTEN": "127.0.0.1:0",
            "CACHE_MAX_ENTRIES": str(2 * entries),
            "CACHE_MAX_BYTES": str(4 << 30),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.cli", "serve", "cache", env=environment, stdout=asyncio.subprocess.PIPE, limit=1 << 20
        )
        assert process.stdout is not None
        metrics = ""
        while b"cache_store_ready" not in (line := await process.stdout.readline()):
            metrics = (re.findall(rb'"metrics":"([^"]+)"', line) or [metrics.encode()])[0].decode()
        draining = asyncio.create_task(process.stdout.read())
        channel = grpc.aio.insecure_channel(f"unix:{folder}/cache.sock")
        try:
            yield Service(pb_grpc.CacheServiceStub(channel), process.pid, metrics)
        finally:
            await channel.close()
            process.terminate()
            await process.wait()
            await draining


async def fill(service: Service, kept: list[tuple[str, str]], scopes: int) -> float:
    """Stores them all as a router does, each looked up before; gives how many a second."""
    waiting = iter(enumerate(kept))

    async def store() -> None:
        for number, (text, _) in waiting:
            await service.stub.LookUp(pb.LookUpRequest(key=key(text), wording=wording(text, number % scopes)), timeout=60)
            await service.stub.Store(pb.StoreRequest(key=key(text), entry=entry(text), wording=wording(text, number % scopes)), timeout=60)

    began = time.perf_counter()
    await asyncio.gather(*(store() for _ in range(CONCURRENT_STORES)))
    return len(kept) / (time.perf_counter() - began)


async def timed(service: Service, count: int, look_up: Callable[[int], Awaitable[pb.LookUpResponse]]) -> dict[str, Any]:
    """Milliseconds of one lookup after another, and by which tier they were answered."""
    times, tiers = [], {"exact": 0, "semantic": 0, "miss": 0}
    cpu_s = service.cpu_s()
    for number in range(count):
        began = time.perf_counter()
        response = await look_up(number)
        times.append((time.perf_counter() - began) * 1e3)
        tiers[{pb.TIER_EXACT: "exact", pb.TIER_SEMANTIC: "semantic"}.get(response.tier, "miss")] += 1
    cuts = statistics.quantiles(times, n=100)
    cpu_ms = (service.cpu_s() - cpu_s) / count * 1e3
    figures = {"p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(times), "cpu_ms": cpu_ms}
    return {name: round(value, 3) for name, value in figures.items()} | tiers


async def measure(count: int, scopes: int) -> dict[str, Any]:
    asked = questions(count + LOOKUPS, seed=1)
    kept, unknown = asked[:count], asked[count:]
    picks = random.Random(2).choices(range(count), k=LOOKUPS)
    async with running(count) as service:
        before = service.memory_bytes()
        rate = await fill(service, kept, scopes)
        await service.settled()
        memory = service.memory_bytes() - before

        def look_up(text: str, scope: int) -> Awaitable[pb.LookUpResponse]:
            return service.stub.LookUp(pb.LookUpRequest(key=key(text), wording=wording(text, scope)), timeout=60)

        same = await timed(service, LOOKUPS, lambda number: look_up(kept[picks[number]][0], picks[number] % scopes))
        reworded = await timed(service, LOOKUPS, lambda number: look_up(kept[picks[number]][1], picks[number] % scopes))
        missing = await timed(service, LOOKUPS, lambda number: look_up(unknown[number % len(unknown)][0], number % scopes))
        stats = await service.stub.GetCacheStats(pb.GetCacheStatsRequest(), timeout=60)
    return {
        "entries": count,
        "scopes": scopes,
        "the same request": same,
        "other words": reworded,
        "unknown question": missing,
        "misses_per_s": round(rate),
        "counted_bytes_per_entry": round(stats.size_bytes / count),
        "memory_bytes_per_entry": round(memory / count),
        "store_faults": stats.fault_count,
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--scopes", type=int, nargs="+", default=[1, 20])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = []
    print("p50 / p99 / CPU of the service, in milliseconds\n")
    print(
        "| entries | scopes | the same request | other words | unknown question | misses/s | memory per entry |\n|---|---|---|---|---|---|---|"
    )
    for count, scopes in itertools.product(arguments.entries, arguments.scopes):
        result = await measure(count, scopes)
        results.append(result)
        times = [" / ".join(f"{result[name][figure]:.2f}" for figure in ("p50_ms", "p99_ms", "cpu_ms")) for name in ASKED]
        cells = [count, scopes, *times, result["misses_per_s"], f"{result['memory_bytes_per_entry'] / 1024:.1f} KiB"]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
