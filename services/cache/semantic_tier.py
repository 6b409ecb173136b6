"""Answers to other wordings of the same question: neighbours by vector, of which the gate lets pass only what it can explain.

How near two texts are says little: "turn it on" and "turn it off" are nearer than most true paraphrases. So the cosine only chooses whom to
look at, nearest first, and a neighbour that is refused does not hide the next.
"""

from collections.abc import Callable

from joulegate.cache.v1 import cache_service_pb2 as pb
from services.cache.counts import Counts
from services.cache.embedding_queue import EmbeddingQueue
from services.cache.hot_index import HotIndex
from services.cache.kept_entry import KeptEntry, KeptWording, scope_id

# Why the answer to the second text must not serve the first; None when it may.
Gate = Callable[[str, str], str | None]


class SemanticTier:
    """Searches one space of vectors. `floor` is the least cosine of a candidate, `top_k` how many are looked at."""

    def __init__(
        self, queue: EmbeddingQueue, fingerprint: str, index: HotIndex, gate: Gate, floor: float, top_k: int, counts: Counts
    ) -> None:
        self._queue = queue
        self._fingerprint = fingerprint
        self._index = index
        self._gate = gate
        self._floor = floor
        self._top_k = top_k
        self._counts = counts

    async def kept_wording(self, key: pb.EntryKey, wording: pb.Wording) -> KeptWording | None:
        """What an entry is found by. None when its words cannot be embedded: it serves the same request only."""
        vector = await self._queue.vector(wording.text)
        if vector is None or not vector.any():
            return None
        return KeptWording.of(scope_id(key, wording.scope, self._fingerprint), wording.text, vector.astype("<f4").tobytes())

    async def find(
        self, key: pb.EntryKey, wording: pb.Wording, now: Callable[[], int], max_age_us: int | None, least: float
    ) -> tuple[KeptEntry, float] | None:
        """The nearest entry that may serve these words, with its cosine, which is at least `least` and the floor. `now` is read once."""
        vector = await self._queue.vector(wording.text)
        if vector is None:
            return None
        scope = scope_id(key, wording.scope, self._fingerprint)
        floor = max(self._floor, least)
        for kept, similarity in self._index.near(scope, vector, floor, self._top_k, now(), max_age_us):
            assert kept.wording is not None
            rule = self._gate(wording.text, kept.wording.text)
            if rule is None:
                self._index.use(kept)
                return kept, similarity
            self._counts.rejected(rule)
        return None
