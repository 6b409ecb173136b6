"""The embedding queue: together, from memory, in time, or not at all."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from services.cache.counts import Counts
from services.cache.embedders.base import EmbeddingError, Vectors
from services.cache.embedders.hashing import HashEmbedder
from services.cache.embedding_queue import EmbeddingQueue
from tests.unit.cache.samples import HeldClock

PATIENCE_S = 20


class Scripted(HashEmbedder):
    """A hash embedder that can be far away, down, or slow."""

    max_characters = 100

    def __init__(self, is_remote: bool) -> None:
        self.is_remote = is_remote
        self.batches: list[list[str]] = []
        self.is_down = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(list(texts))
        await self.may_answer.wait()
        if self.is_down:
            raise EmbeddingError("down")
        return await super().embed(texts)


def queue_of(embedder: Scripted, deadline_s: float = PATIENCE_S) -> tuple[EmbeddingQueue, Counts, HeldClock]:
    counts, clock = Counts(), HeldClock()
    return EmbeddingQueue(embedder, deadline_s, counts, clock), counts, clock


async def expected(text: str) -> Vectors:
    vector: Vectors = (await HashEmbedder().embed([text]))[0]
    return vector


async def test_texts_that_come_together_are_sent_together_and_each_once() -> None:
    embedder = Scripted(is_remote=True)
    queue, counts, _ = queue_of(embedder)
    texts = [f"text {number % 20}" for number in range(100)]
    vectors = await asyncio.gather(*map(queue.vector, texts))
    assert [len(batch) for batch in embedder.batches] == [20]
    for text, vector in zip(texts, vectors, strict=True):
        assert vector is not None and np.array_equal(vector, await expected(text))
    assert counts.embedding_faults == 0
    await queue.close()


@pytest.mark.parametrize("is_remote", [True, False])
async def test_words_just_embedded_are_not_embedded_again(is_remote: bool) -> None:
    embedder = Scripted(is_remote)
    queue, _, _ = queue_of(embedder)
    first = await queue.vector("one")
    assert await queue.vector("one") is first
    assert embedder.batches == [["one"]]
    await queue.close()


async def test_text_that_is_too_long_is_not_cut_but_left_out() -> None:
    embedder = Scripted(is_remote=False)
    queue, counts, _ = queue_of(embedder)
    assert await queue.vector("x" * 101) is None
    assert (embedder.batches, counts.embedding_faults) == ([], 0)


@pytest.mark.parametrize("is_remote", [True, False])
async def test_embedder_that_fails_is_left_alone_for_a_while(is_remote: bool) -> None:
    embedder = Scripted(is_remote)
    embedder.is_down = True
    queue, counts, clock = queue_of(embedder)
    assert await queue.vector("one") is None
    assert await queue.vector("two") is None
    assert embedder.batches == [["one"]]
    assert counts.embedding_faults == 2
    embedder.is_down = False
    clock.seconds += 2
    assert await queue.vector("two") is not None
    await queue.close()


async def test_answer_that_is_late_is_a_fault_for_who_waits_and_not_for_who_comes_later() -> None:
    embedder = Scripted(is_remote=True)
    embedder.may_answer.clear()
    queue, counts, clock = queue_of(embedder, deadline_s=0.01)
    assert await queue.vector("one") is None
    assert counts.embedding_faults == 1
    embedder.may_answer.set()
    clock.seconds += 2
    queue._deadline_s = PATIENCE_S
    assert await queue.vector("one") is not None
    await queue.close()


async def test_caller_that_leaves_does_not_take_the_vector_from_the_others() -> None:
    embedder = Scripted(is_remote=True)
    embedder.may_answer.clear()
    queue, _, _ = queue_of(embedder)
    leaving, staying = asyncio.create_task(queue.vector("one")), asyncio.create_task(queue.vector("one"))
    async with asyncio.timeout(PATIENCE_S):
        while not embedder.batches:
            await asyncio.sleep(0)
    leaving.cancel()
    embedder.may_answer.set()
    assert await staying is not None
    await queue.close()
