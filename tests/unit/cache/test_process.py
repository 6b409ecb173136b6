"""The cache as a process: what a stop, a kill and a second process on the same folder do to what it keeps."""

import asyncio
import os
import resource
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc

from joulegate.cache.v1 import cache_service_pb2 as pb
from joulegate.cache.v1 import cache_service_pb2_grpc as pb_grpc
from tests.fakes.embeddings import EmbeddingsEndpoint
from tests.unit.cache.samples import answer, key

ROOT = Path(__file__).parents[3]


class CacheProcess:
    def __init__(self, process: asyncio.subprocess.Process, channel: grpc.aio.Channel) -> None:
        self.process = process
        self.stub = pb_grpc.CacheServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)

    async def keep(self, number: int, tenant: str = "acme") -> None:
        entry = answer(f"{tenant} {number} " + "x" * (70_000 if number % 10 == 0 else 100))
        await self.stub.Store(pb.StoreRequest(key=key(number, tenant), entry=entry), timeout=10)

    async def keep_worded(self, number: int) -> None:
        wording = pb.Wording(scope=bytes(32), text=f"How do I boil {number} potatoes?")
        await self.stub.Store(pb.StoreRequest(key=key(number), entry=answer(f"answer {number}"), wording=wording), timeout=10)

    async def text_by_other_words(self, number: int) -> str | None:
        wording = pb.Wording(scope=bytes(32), text=f"How can I boil {number} potatoes?")
        found = await self.stub.LookUp(pb.LookUpRequest(key=key(1000 + number), wording=wording), timeout=10)
        return found.entry.completion.choices[0].message.text if found.tier == pb.TIER_SEMANTIC else None

    async def faulty(self) -> None:
        """Waits until its store has failed it."""
        async with asyncio.timeout(30):
            while (await self.stats()).fault_count == 0:
                await asyncio.sleep(0.01)

    async def settle(self) -> None:
        """An invalidation is acknowledged when the store has applied it, and with it all that was queued."""
        await self.stub.InvalidateEntries(pb.InvalidateEntriesRequest(tenant="nobody"), timeout=10)

    async def text_at(self, number: int, tenant: str = "acme") -> str | None:
        response = await self.stub.LookUp(pb.LookUpRequest(key=key(number, tenant)), timeout=10)
        return response.entry.completion.choices[0].message.text if response.HasField("entry") else None

    async def numbers_kept(self, tenant: str, most: int) -> set[int]:
        texts = {number: await self.text_at(number, tenant) for number in range(most)}
        assert all(text is None or text.startswith(f"{tenant} {number} ") for number, text in texts.items())
        return {number for number, text in texts.items() if text is not None}

    async def ready(self) -> None:
        """Waits until the process says that it has read its store."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while b"cache_store_ready" not in await self.process.stdout.readline():
                pass

    async def stats(self) -> pb.GetCacheStatsResponse:
        return await self.stub.GetCacheStats(pb.GetCacheStatsRequest(), timeout=10)

    async def end(self, signum: signal.Signals) -> int:
        self.process.send_signal(signum)
        return await asyncio.wait_for(self.process.wait(), 30)


async def spawn(folder: Path, sockets: str, **settings: str) -> asyncio.subprocess.Process:
    environment = {
        **os.environ,
        **settings,
        "JOULEGATE_DATA_DIR": str(folder),
        "GRPC_LISTEN": f"unix:{sockets}/cache.sock",
        # Where the process makes its own socket, which a killed one leaves behind.
        "TMPDIR": sockets,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
    }
    command = [sys.executable, "-W", "error", "-m", "services.cache"]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment, stdout=pipe, stderr=pipe)


@asynccontextmanager
async def running(folder: Path, **settings: str) -> AsyncIterator[CacheProcess]:
    # Not in the test's own folder: the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="jg-") as sockets:
        process = await spawn(folder, sockets, **settings)
        try:
            async with grpc.aio.insecure_channel(f"unix:{sockets}/cache.sock") as channel:
                cache = CacheProcess(process, channel)
                await cache.health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=20)
                yield cache
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def test_stopped_cache_has_its_entries_when_it_starts_again(tmp_path: Path) -> None:
    async with running(tmp_path) as cache:
        for number in range(30):
            await cache.keep(number)
        assert await cache.end(signal.SIGTERM) == 0
    async with running(tmp_path) as cache:
        await cache.ready()
        assert await cache.numbers_kept("acme", 40) == set(range(30))


async def test_cache_that_starts_again_finds_its_answers_by_other_words(tmp_path: Path) -> None:
    kept, asked = "How do I boil an egg?", "How can I boil an egg?"
    async with running(tmp_path) as cache:
        for number in range(20):
            text = kept if number == 7 else f"How do I boil {number} potatoes?"
            wording = pb.Wording(scope=bytes(32), text=text)
            await cache.stub.Store(pb.StoreRequest(key=key(number), entry=answer(f"answer {number}"), wording=wording), timeout=10)
        assert await cache.end(signal.SIGTERM) == 0
    async with running(tmp_path) as cache:
        await cache.ready()
        wording = pb.Wording(scope=bytes(32), text=asked)
        found = await cache.stub.LookUp(pb.LookUpRequest(key=key(99), wording=wording), timeout=10)
        assert (found.tier, found.entry.completion.choices[0].message.text) == (pb.TIER_SEMANTIC, "answer 7")
        assert (await cache.stats()).semantic_entry_count == 20


async def test_embedder_of_an_endpoint_finds_other_words_and_its_loss_costs_only_these(tmp_path: Path) -> None:
    async with EmbeddingsEndpoint() as endpoint:
        settings = {
            "CACHE_EMBEDDINGS_URL": endpoint.base_url,
            "CACHE_EMBEDDINGS_MODEL": "mini",
            "CACHE_EMBEDDINGS_DIMENSIONS": str(endpoint.dimension),
            "CACHE_EMBEDDINGS_TIMEOUT_SECONDS": "10",
        }
        async with running(tmp_path, **settings) as cache:

            async def tier(number: int, text: str) -> "pb.Tier.ValueType":
                wording = pb.Wording(scope=bytes(32), text=text)
                return (await cache.stub.LookUp(pb.LookUpRequest(key=key(number), wording=wording), timeout=20)).tier

            wording = pb.Wording(scope=bytes(32), text="How do I boil an egg?")
            await cache.stub.Store(pb.StoreRequest(key=key(1), entry=answer("five minutes"), wording=wording), timeout=20)
            assert await tier(2, "How can I boil an egg?") == pb.TIER_SEMANTIC
            endpoint.instead = lambda: web.Response(status=500)
            assert await tier(2, "How could I boil an egg?") == pb.TIER_UNSPECIFIED
            assert await tier(1, "How do I boil an egg?") == pb.TIER_EXACT
            assert (await cache.stats()).embedding_fault_count == 1


async def test_killed_cache_loses_at_most_what_was_not_yet_written_and_nothing_removed_returns(tmp_path: Path) -> None:
    async with running(tmp_path) as cache:
        for number in range(40):
            await cache.keep(number)
            await cache.keep(number, "emca")
        await cache.settle()
        removed = await cache.stub.InvalidateEntries(pb.InvalidateEntriesRequest(tenant="emca"))
        assert removed.removed_count == 40

        async def store_without_end() -> None:
            for number in range(40, 10_000):
                await cache.keep(number)

        storing = asyncio.create_task(store_without_end())
        async with asyncio.timeout(30):
            while (await cache.stats()).store_count < 500:
                pass
        await cache.end(signal.SIGKILL)
        await asyncio.gather(storing, return_exceptions=True)
    async with running(tmp_path) as cache:
        await cache.ready()
        numbers = await cache.numbers_kept("acme", 450)
        assert numbers >= set(range(40))
        assert await cache.numbers_kept("emca", 40) == set()
        stats = await cache.stats()
        assert (stats.entry_count >= len(numbers), stats.fault_count) == (True, 0)


async def test_second_process_on_the_same_folder_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with running(tmp_path) as cache:
        await cache.ready()
        with tempfile.TemporaryDirectory(prefix="jg-") as sockets:
            second = await spawn(tmp_path, sockets)
            _, stderr = await asyncio.wait_for(second.communicate(), 30)
        assert second.returncode == 2
        assert b"cache.db is in use by another cache process" in stderr


async def test_unusable_folder_costs_durability_but_no_answer(tmp_path: Path) -> None:
    (tmp_path / "cache.db").write_text("a file where a folder should be")
    async with running(tmp_path) as cache:
        await cache.keep(1)
        await cache.keep_worded(2)
        await cache.faulty()
        assert (await cache.text_at(1) or "").startswith("acme 1 ")
        assert await cache.text_by_other_words(2) == "answer 2"
        assert await cache.text_at(3) is None
        assert await cache.end(signal.SIGTERM) == 0


async def test_full_disk_costs_no_answer_and_is_made_good_once_there_is_room(tmp_path: Path) -> None:
    async with running(tmp_path) as cache:
        await cache.ready()
        # No file may grow: what is written fails as on a full disk.
        limits = resource.prlimit(cache.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(cache.process.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
        for number in range(1, 20):
            await cache.keep_worded(number)
        await cache.faulty()
        assert [await cache.text_by_other_words(number) for number in range(1, 20)] == [f"answer {number}" for number in range(1, 20)]
        assert await cache.text_by_other_words(20) is None
        resource.prlimit(cache.process.pid, resource.RLIMIT_FSIZE, limits)
        assert await cache.end(signal.SIGTERM) == 0
    async with running(tmp_path) as cache:
        await cache.ready()
        assert [await cache.text_by_other_words(number) for number in range(1, 20)] == [f"answer {number}" for number in range(1, 20)]
