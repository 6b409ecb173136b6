"""Answers to other wordings of the same question: neighbours by vector, of which the gate lets pass only what it can explain.

How near two texts are says little: "turn it on" and "turn it off" are nearer than most true paraphrases. So the cosine only chooses whom to
look at, nearest first, and a neighbour that is refused does not hide the next.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from joulegate.cache.v1 import cache_service_pb2 as pb
from services.cache.counts import Counts
from services.cache.embedding_queue import EmbeddingQueue
from services.cache.hot_index import HotIndex
from services.cache.kept_entry import KeptEntry, KeptWording, scope_id
from services.cache.lessons import Lessons
from services.cache.template import Filling, filling

# Why the answer to the second text must not serve the first; None when it may.
Gate = Callable[[str, str], str | None]


# Counted like a rule of the gate.
BRAKED = "braked"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a caller accepts of other words."""

    # The least cosine that will do, where it is above the floor.
    min_similarity: float = 0.0
    # The share of wrong answers, among those that the gate refuses; None: none of those.
    max_error: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """An entry that serves, with its cosine; or those whose answers are to be compared with the new one."""

    kept: KeptEntry | None = None
    similarity: float = 0.0
    neighbours: Sequence[pb.Neighbour] = ()


class SemanticTier:
    """Searches one space of vectors. `floor` is the least cosine of a candidate, `top_k` how many are looked at.

    `is_lone` says that nobody else searches what is kept here: then a text may wait for its vector until it may serve.
    """

    def __init__(
        self,
        queue: EmbeddingQueue,
        fingerprint: str,
        index: HotIndex,
        gate: Gate,
        lessons: Lessons,
        floor: float,
        top_k: int,
        counts: Counts,
        is_lone: bool = True,
    ) -> None:
        self._may_wait = is_lone and queue.is_at_once
        self._queue = queue
        self._fingerprint = fingerprint
        self._index = index
        self._gate = gate
        self._lessons = lessons
        self._floor = floor
        self._top_k = top_k
        self._counts = counts

    async def kept_wording(self, key: pb.EntryKey, wording: pb.Wording) -> KeptWording | None:
        """What an entry is found by, without a vector where none is needed yet. None when its words cannot be embedded: it serves the same
        request only."""
        text, scope = wording.text, scope_id(key, wording.scope, self._fingerprint)
        vector = self._queue.known(text)
        if vector is None and self._may_wait and self._queue.takes(text) and self._index.is_beside_none(scope, filling(text)):
            return KeptWording.of(scope, text, b"")
        if vector is None:
            vector = await self._queue.vector(text)
        if vector is None:
            return None
        data = vector.astype("<f4", copy=False).tobytes()
        if data == bytes(len(data)):
            return None
        return KeptWording.of(scope, text, data)

    async def find(self, key: pb.EntryKey, wording: pb.Wording, now: Callable[[], int], max_age_us: int | None, bounds: Bounds) -> Finding:
        """The nearest entry that may serve these words, with its cosine, which is at least the floor. `now` is read once."""
        scope = scope_id(key, wording.scope, self._fingerprint)
        if self._lessons.is_braked(scope):
            self._counts.rejected(BRAKED)
            return Finding()
        # What the gate would refuse may serve, or is compared, for those who accept some wrong answers.
        asked = filling(wording.text) if bounds.max_error is None else None
        if self._index.is_beside_none(scope, asked):
            # Most scopes are conversations, and seen for the first time.
            return Finding()
        vector = await self._queue.vector(wording.text)
        if vector is None:
            return Finding()
        await self._embed_beside(scope, asked)
        floor = max(self._floor, bounds.min_similarity)
        neighbours: list[pb.Neighbour] = []
        refused: Counter[str] = Counter()
        hit: tuple[KeptEntry, float] | None = None
        rows = self._index.rows_beside(scope, asked)
        # Others need not wait while a large scope is searched.
        search = None if rows is not None else self._index.long_search(scope, vector, floor, self._top_k)
        if search is not None:
            rows = (await asyncio.to_thread(search.run))[0]
        for kept, similarity in self._index.near(scope, vector, floor, self._top_k, now(), max_age_us, rows):
            assert kept.wording is not None
            rule = self._gate(wording.text, kept.wording.text)
            if rule is not None and bounds.max_error is not None and self._lessons.may_serve(kept, similarity, bounds.max_error):
                rule = None
            if rule is None:
                hit = kept, similarity
                break
            refused[rule] += 1
            if bounds.max_error is not None:
                neighbours.append(pb.Neighbour(entry_id=kept.entry_id, similarity=similarity))
        for rule, count in refused.items():
            self._counts.rejected(rule, count)
        if hit is None:
            return Finding(neighbours=neighbours)
        self._index.use(hit[0])
        return Finding(*hit)

    async def _embed_beside(self, scope: str, asked: Filling | None) -> None:
        """Gives the vectors that have waited for such a text."""
        for kept in self._index.unembedded_beside(scope, asked):
            assert kept.wording is not None
            vector = await self._queue.vector(kept.wording.text)
            if vector is not None:
                self._index.embed(kept, vector)
