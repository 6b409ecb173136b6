"""The cache service: its composition root."""

import asyncio
import random
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache

from joulegate.cache.v1 import cache_service_pb2_grpc as pb_grpc
from joulegate.cache.v1.flight_service_pb2_grpc import add_FlightServiceServicer_to_server
from services.cache import gate, settings
from services.cache.answer_cache import AnswerCache
from services.cache.brake import Brake
from services.cache.counts import Counts
from services.cache.embedded_store import EmbeddedStore, StoreInUseError, check_unowned
from services.cache.embedders.base import Embedder, EmbeddingError
from services.cache.embedders.endpoint import EndpointEmbedder
from services.cache.embedders.fastembed import FastembedEmbedder
from services.cache.embedders.hashing import HashEmbedder
from services.cache.embedders.wordllama import WordllamaEmbedder
from services.cache.embedding_queue import EmbeddingQueue
from services.cache.flight_exchange import FlightExchange
from services.cache.flight_servicer import FlightServicer
from services.cache.hot_index import HotIndex
from services.cache.lessons import Lessons
from services.cache.milvus_store import MilvusStore
from services.cache.mirror import Mirror, Store
from services.cache.removal_watch import RemovalWatch
from services.cache.semantic_tier import SemanticTier
from services.cache.servicer import CacheServicer
from services.cache.settings import CacheSettings
from services.cache.shared_reads import SharedReads
from services.runtime import app, logs
from services.runtime.clock import SystemClock
from services.runtime.mesh import Mesh
from services.runtime.settings import SettingsError

log = logs.get(__name__)
# Texts that the gate has taken apart, at a kilobyte each: taking one apart costs a fifth of a millisecond, comparing two next to nothing.
_ANALYSES = 16_384
_analyse = lru_cache(_ANALYSES)(gate.analyse)
_numerals = lru_cache(_ANALYSES)(gate.numerals)


@asynccontextmanager
async def build(own: CacheSettings, mesh: Mesh) -> AsyncIterator[None]:
    """Answers at once; the store opens and fills memory meanwhile."""
    _check(own)
    clock, counts = SystemClock(), Counts()
    index = HotIndex(own.max_entries, own.max_bytes, own.tenant_max_bytes)
    async with AsyncExitStack() as stack:
        embedder = await _embedder(own, counts)
        origin = uuid.uuid4().hex
        mirror = await stack.enter_async_context(Mirror(_store(own, embedder, origin), index, counts, clock, is_warming=own.is_enabled))
        lessons = Lessons(index, mirror, Brake(own.max_wrong_share), clock)
        semantic = None
        if embedder is not None:
            queue = EmbeddingQueue(embedder, own.embeddings_timeout_s, counts, clock)
            stack.push_async_callback(queue.close)
            floor = embedder.floor if own.similarity_threshold is None else own.similarity_threshold
            is_lone = own.milvus_uri is None
            semantic = SemanticTier(queue, embedder.fingerprint, index, refusing_rule, lessons, floor, own.top_k, counts, is_lone)
        shared = None
        if own.milvus_uri is not None and own.is_enabled:
            shared = SharedReads(_cluster(own.milvus_uri, own, embedder, origin), own.top_k, counts, clock)
            stack.push_async_callback(shared.close)
        cache = AnswerCache(own, index, mirror, counts, clock, random.random, semantic, shared)
        if shared is not None:
            await stack.enter_async_context(RemovalWatch(shared, cache, clock))
        exchange = await stack.enter_async_context(FlightExchange(clock, mesh.draining))
        pb_grpc.add_CacheServiceServicer_to_server(CacheServicer(cache, lessons, exchange), mesh.registry)
        add_FlightServiceServicer_to_server(FlightServicer(exchange), mesh.registry)
        yield


def _store(own: CacheSettings, embedder: Embedder | None, origin: str) -> Store:
    if own.milvus_uri is not None:
        return _cluster(own.milvus_uri, own, embedder, origin)
    return EmbeddedStore(own.store_path) if embedder is None else EmbeddedStore(own.store_path, embedder.fingerprint)


def _cluster(uri: str, own: CacheSettings, embedder: Embedder | None, origin: str) -> MilvusStore:
    space = ("none", 0) if embedder is None else (embedder.fingerprint, embedder.dimension)
    return MilvusStore(uri, own.milvus_token, *space, origin)


def refusing_rule(asked: str, kept: str) -> str | None:
    """The gate's rule by which the answer to one text must not serve the other; None when it may."""
    if gate.differ_in_numbers_only(_numerals(asked), _numerals(kept)):
        return str(gate.Rule.NUMBER)
    rule = gate.compare(_analyse(asked), _analyse(kept))
    return None if rule is None else str(rule)


async def _embedder(own: CacheSettings, counts: Counts) -> Embedder | None:
    """The embedder that is meant. Without it there are exact hits only: never another one's vectors in its place."""
    try:
        # Loading blocks.
        return await asyncio.to_thread(_load, own)
    except EmbeddingError as error:
        counts.embedding_fault()
        log.warning("embedder_unavailable", embedder=own.embedder, error=str(error))
        return None


def _load(own: CacheSettings) -> Embedder | None:
    match own.embedder:
        case settings.WORDLLAMA:
            return WordllamaEmbedder()
        case settings.OPENAI:
            # _check has seen that these are set.
            url, model, dimension = own.embeddings_url or "", own.embeddings_model or "", own.embeddings_dimension or 0
            return EndpointEmbedder(url, model, dimension, own.embeddings_api_key)
        case settings.FASTEMBED:
            return FastembedEmbedder(own.embeddings_model or "")
        case settings.HASH:
            return HashEmbedder()
    return None


def _check(own: CacheSettings) -> None:
    problems = own.problems()
    if own.milvus_uri is None:
        try:
            check_unowned(own.store_path)
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
