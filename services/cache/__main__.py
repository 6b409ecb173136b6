"""The cache service: its composition root."""

import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from joulegate.cache.v1 import cache_service_pb2_grpc as pb_grpc
from services.cache.answer_cache import AnswerCache
from services.cache.counts import Counts
from services.cache.hot_index import HotIndex
from services.cache.lite_server import StoreInUseError, check_unowned
from services.cache.milvus_store import MilvusStore
from services.cache.mirror import Mirror
from services.cache.servicer import CacheServicer
from services.cache.settings import CacheSettings
from services.runtime import app
from services.runtime.clock import SystemClock
from services.runtime.mesh import Mesh
from services.runtime.settings import SettingsError


@asynccontextmanager
async def build(settings: CacheSettings, mesh: Mesh) -> AsyncIterator[None]:
    """Answers at once; the store opens and fills memory meanwhile."""
    _check(settings)
    clock, counts = SystemClock(), Counts()
    index = HotIndex(settings.max_entries, settings.max_bytes)
    store = MilvusStore(settings.store_path, settings.milvus_uri, settings.milvus_token)
    async with AsyncExitStack() as stack:
        mirror = await stack.enter_async_context(Mirror(store, index, counts, clock, is_warming=settings.is_enabled))
        cache = AnswerCache(settings, index, mirror, counts, clock, random.random)
        pb_grpc.add_CacheServiceServicer_to_server(CacheServicer(cache), mesh.registry)
        yield


def _check(settings: CacheSettings) -> None:
    problems = []
    if settings.max_entry_bytes > settings.max_bytes:
        problems.append("CACHE_MAX_ENTRY_BYTES is above CACHE_MAX_BYTES")
    if settings.milvus_uri is None:
        try:
            check_unowned(settings.store_path)
        except StoreInUseError as error:
            problems.append(f"CACHE_PERSIST_PATH: {error}")
        except OSError:
            # The store will meet it too, and say so; the cache serves from memory meanwhile.
            pass
    if problems:
        raise SettingsError(problems)


def main() -> int:
    return app.run("cache", CacheSettings, build)


if __name__ == "__main__":
    sys.exit(main())
