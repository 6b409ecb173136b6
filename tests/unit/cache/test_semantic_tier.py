"""What the semantic tier does, and what it leaves undone."""

import threading

import pytest

from joulegate.cache.v1 import cache_service_pb2 as pb
from services.cache.brake import Brake
from services.cache.counts import Counts
from services.cache.embedders.hashing import HashEmbedder
from services.cache.embedding_queue import EmbeddingQueue
from services.cache.hot_index import HotIndex
from services.cache.lessons import Lessons
from services.cache.mirror import Mirror
from services.cache.nearest import Found, Search
from services.cache.semantic_tier import Bounds, Finding, SemanticTier
from tests.unit.cache.memory_store import MemoryStore
from tests.unit.cache.samples import HeldClock, kept, key
from tests.unit.cache.test_embedding_queue import PATIENCE_S, Scripted

SCOPE = b"s" * 32
NEAR, NEARER, FAR = "how do I reset my password", "how do I reset my password now", "boil an egg"


def spelled(number: int) -> str:
    """A word of its own for each number, without a digit."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


class Tier:
    """A tier over a hash embedder, with a gate that refuses whatever is not the same and tells what it was asked."""

    def __init__(self, is_remote: bool = False, is_lone: bool = True) -> None:
        clock = HeldClock()
        self.counts, self.index, self.embedder = Counts(), HotIndex(100_000, 1 << 30), Scripted(is_remote)
        self.compared: list[tuple[str, str]] = []
        lessons = Lessons(self.index, Mirror(MemoryStore(), self.index, self.counts, clock), Brake(0.02), clock)
        queue = EmbeddingQueue(self.embedder, PATIENCE_S, self.counts, clock)
        self.tier = SemanticTier(queue, "hash", self.index, self._gate, lessons, 0.5, 8, self.counts, is_lone)

    def _gate(self, asked: str, kept: str) -> str | None:
        self.compared.append((asked, kept))
        return None if asked == kept else "words"

    async def store(self, number: int, text: str) -> None:
        wording = await self.tier.kept_wording(key(number), pb.Wording(scope=SCOPE, text=text))
        assert wording is not None
        self.index.put(kept(number, wording=wording))

    async def find(self, text: str) -> str | None:
        found = await self.look(text)
        return None if found.kept is None else found.kept.entry_id

    async def look(self, text: str, max_error: float | None = None) -> Finding:
        return await self.tier.find(key(), pb.Wording(scope=SCOPE, text=text), lambda: 0, None, Bounds(max_error=max_error))


async def test_a_miss_is_embedded_once_and_taken_apart_only_for_who_is_near() -> None:
    tier = Tier()
    assert await tier.find(NEAR) is None
    await tier.store(1, NEAR)
    assert await tier.find(FAR) is None
    await tier.store(2, FAR)
    # Nobody was near: the gate knows nothing of any of them.
    assert tier.compared == []
    assert tier.embedder.batches == [[FAR], [NEAR]]
    assert await tier.find(NEARER) is None
    assert tier.compared == [(NEARER, NEAR)]
    assert tier.counts.rejects == {"words": 1}
    assert await tier.find(NEAR) == kept(1).entry_id


async def test_a_large_scope_is_searched_aside_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tier = Tier()
    for number in range(300):
        await tier.store(number, f"how do I reset my password {spelled(number)}")
    here, threads, run = threading.current_thread(), [], Search.run

    def watched(search: Search) -> Found:
        threads.append(threading.current_thread())
        return run(search)

    monkeypatch.setattr(Search, "run", watched)
    asked = f"how do I reset my password {spelled(77)}"
    found = await tier.find(asked)
    assert found == kept(77).entry_id
    assert threads == [here]
    refused = dict(tier.counts.rejects)
    monkeypatch.setattr("services.cache.slabs.LONG", 300 * 64)
    assert await tier.find(asked) == found
    assert threads[1] is not here
    assert tier.counts.rejects == refused


async def test_a_scope_of_one_text_needs_no_vector_until_something_is_asked() -> None:
    tier = Tier()
    assert await tier.find(NEAR) is None
    await tier.store(1, NEAR)
    assert tier.embedder.batches == []
    before = tier.index.size_bytes
    assert await tier.find(NEARER) is None
    assert tier.compared == [(NEARER, NEAR)]
    assert tier.index.size_bytes == before + 4 * HashEmbedder.dimension


async def test_texts_that_are_kept_without_being_looked_up_are_found_at_once() -> None:
    tier = Tier()
    for number in range(200):
        await tier.store(number, f"how do I reset my {spelled(number)}")
    assert await tier.find(f"how do I reset my {spelled(150)}") == kept(150).entry_id


async def test_where_vectors_take_time_or_others_search_they_are_made_when_a_text_is_kept() -> None:
    for tier in (Tier(is_remote=True), Tier(is_lone=False)):
        await tier.store(1, NEAR)
        assert tier.embedder.batches == [[NEAR]]


async def test_a_text_too_long_for_the_embedder_serves_no_other_words() -> None:
    tier = Tier()
    assert await tier.tier.kept_wording(key(), pb.Wording(scope=SCOPE, text="word " * 30)) is None


async def test_of_one_template_texts_wait_for_a_question_with_the_same_digits() -> None:
    tier = Tier()
    for number in range(300):
        assert await tier.find(f"how do I reset password {number}") is None
        await tier.store(number, f"how do I reset password {number}")
    assert len(tier.embedder.batches) < 70
    tier.compared.clear()
    assert await tier.find("password 270: how do I reset it") is None
    assert await tier.find("I reset password 207 how do") is None
    assert tier.compared[8] == ("I reset password 207 how do", "how do I reset password 207")
    assert await tier.find("how do I reset password 2,8,1") is None
    embedded = {text for batch in tier.embedder.batches for text in batch}
    assert {f"how do I reset password {number}" for number in (270, 207, 281)} <= embedded
    assert "how do I reset password 271" not in embedded
    assert len(tier.embedder.batches) < 80
    assert await tier.find("how do I reset password 299") == kept(299).entry_id


async def test_of_one_template_only_what_has_the_same_numbers_is_compared() -> None:
    tier = Tier()
    for number in range(300):
        await tier.store(number, f"how do I reset password {number}")
    await tier.store(300, "how do I reset password {number}")
    assert await tier.find("how do I reset password 1000") is None
    # None of the 300, though each is nearer than the other text, and they are more than are looked at.
    assert tier.compared == [("how do I reset password 1000", "how do I reset password {number}")]
    assert await tier.find("how do I reset password 77") == kept(77).entry_id


async def test_who_accepts_wrong_answers_learns_of_the_same_template_too() -> None:
    tier = Tier()
    for number in range(300):
        await tier.store(number, f"how do I reset password {number}")
    assert len((await tier.look("how do I reset password 1000", max_error=0.05)).neighbours) == 8
