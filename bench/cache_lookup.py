"""Lookups in the cache service, on a Unix socket: `python bench/cache_lookup.py [--entries 10000 100000] [--out FILE]`.

The real service with its default embedder, gate and embedded Milvus is filled with short questions and answers of 800 bytes, and is then
asked one lookup at a time: the same request, other words of a kept question, questions that nobody asked, and a request without words that
finds nothing, which is what the way there takes. It is asked in both ways that there are: in the session that a router keeps open, and by
a gRPC call for each. All entries lie in one scope, the worst case, or in twenty. Wall-clock times need an idle machine; the service's CPU
time per lookup, all its threads', bears company, and so does that per miss while it is filled: a lookup, a store, and the rows behind.
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
import uvloop  # noqa: E402

from joulegate.cache.v1 import cache_service_pb2 as pb  # noqa: E402
from joulegate.cache.v1 import cache_service_pb2_grpc as pb_grpc  # noqa: E402
from joulegate.chat.v1 import chat_pb2  # noqa: E402
from services.runtime.session import SessionChannel  # noqa: E402

LOOKUPS = 2_000
WAYS = ("session", "calls")
ASKED = ("nothing", "the same request", "other words", "unknown question")
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
    """`stubs` are the ways to ask it."""

    def __init__(self, stubs: dict[str, pb_grpc.CacheServiceStub], pid: int, metrics: str) -> None:
        self.stubs = stubs
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
        channels = [grpc.aio.insecure_channel(f"unix:{folder}/cache.sock") for _ in WAYS]
        channels[0] = SessionChannel(channels[0])
        stubs = {way: pb_grpc.CacheServiceStub(channel) for way, channel in zip(WAYS, channels, strict=True)}
        try:
            yield Service(stubs, process.pid, metrics)
        finally:
            for channel in channels:
                await channel.close()
            process.terminate()
            await process.wait()
            await draining


async def fill(service: Service, kept: list[tuple[str, str]], scopes: int) -> tuple[float, float]:
    """Stores them all as a router does, each looked up before; gives how many a second, and milliseconds of the service's CPU for each."""
    waiting, stub = iter(enumerate(kept)), service.stubs["session"]

    async def store() -> None:
        for number, (text, _) in waiting:
            await stub.LookUp(pb.LookUpRequest(key=key(text), wording=wording(text, number % scopes)), timeout=60)
            await stub.Store(pb.StoreRequest(key=key(text), entry=entry(text), wording=wording(text, number % scopes)), timeout=60)

    began, cpu_s = time.perf_counter(), service.cpu_s()
    await asyncio.gather(*(store() for _ in range(CONCURRENT_STORES)))
    took_s = time.perf_counter() - began
    await service.settled()
    return len(kept) / took_s, (service.cpu_s() - cpu_s) / len(kept) * 1e3


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


async def ask(service: Service, way: str, kept: list[tuple[str, str]], unknown: list[str], scopes: int) -> dict[str, Any]:
    """Each kind of lookup in one way, a question being asked once: neither its vector nor what it says is remembered."""
    stub = service.stubs[way]

    def look_up(text: str, number: int) -> Awaitable[pb.LookUpResponse]:
        return stub.LookUp(pb.LookUpRequest(key=key(text), wording=wording(text, number % scopes)), timeout=60)

    def at(texts: list[str]) -> Callable[[int], Awaitable[pb.LookUpResponse]]:
        return lambda number: look_up(texts[number], number)

    return {
        "nothing": await timed(service, LOOKUPS, lambda number: stub.LookUp(pb.LookUpRequest(key=key(f"no {number}")), timeout=60)),
        "the same request": await timed(service, len(kept), at([same for same, _ in kept])),
        "other words": await timed(service, len(kept), at([other for _, other in kept])),
        "unknown question": await timed(service, len(unknown), at(unknown)),
    }


async def measure(count: int, scopes: int) -> dict[str, Any]:
    each = min(LOOKUPS, count // len(WAYS) // scopes * scopes)
    asked = questions(count + len(WAYS) * each, seed=1)
    kept, unknown = asked[:count], [text for text, _ in asked[count:]]
    async with running(count) as service:
        before = service.memory_bytes()
        rate, cpu_ms = await fill(service, kept, scopes)
        memory = service.memory_bytes() - before
        ways = {}
        for place, way in enumerate(WAYS):
            # Spread over all that is kept, each in its own scope.
            starts = range(place * scopes, count, max(1, count // each // scopes) * scopes)
            own = [kept[start + scope] for start in starts for scope in range(scopes) if start + scope < count][:each]
            ways[way] = await ask(service, way, own, unknown[place * each : (place + 1) * each], scopes)
        stats = await service.stubs["calls"].GetCacheStats(pb.GetCacheStatsRequest(), timeout=60)
    return {
        "entries": count,
        "scopes": scopes,
        "ways": ways,
        "misses_per_s": round(rate),
        "miss_cpu_ms": round(cpu_ms, 3),
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
    print(f"| entries | scopes | by | {' | '.join(ASKED)} | CPU per miss | memory per entry |\n|{'---|' * (len(ASKED) + 5)}")
    for count, scopes in itertools.product(arguments.entries, arguments.scopes):
        result = await measure(count, scopes)
        results.append(result)
        filled = [f"{result['miss_cpu_ms']:.2f}", f"{result['memory_bytes_per_entry'] / 1024:.1f} KiB"]
        for way, asked in result["ways"].items():
            times = [" / ".join(f"{asked[name][figure]:.2f}" for figure in ("p50_ms", "p99_ms", "cpu_ms")) for name in ASKED]
            print("| " + " | ".join(map(str, [count, scopes, way, *times, *filled])) + " |", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    uvloop.run(main())
