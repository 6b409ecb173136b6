"""What the cache learns about its own answers, and what follows from it.

An entry whose answer was wrong for other words is quarantined: it goes on serving its own words, and no others. A scope with too many
such entries gives no semantic hits for a while (services/cache/brake.py). What is learned of a single entry also says how similar other
words must be for a caller who accepts a share of wrong answers (services/cache/verified.py). Quarantine outlives the process; counts do
not.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from joulegate.cache.v1 import cache_service_pb2 as pb
from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.cache import agreement, metrics, verified
from services.cache.agreement import Agreement
from services.cache.brake import Brake
from services.cache.entry_filter import EntryFilter
from services.cache.hot_index import HotIndex
from services.cache.kept_entry import KeptEntry, mark
from services.cache.mirror import Mirror
from services.cache.verified import MAX_OBSERVATIONS, Observation
from services.runtime import logs
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError

log = logs.get(__name__)

MAX_NEIGHBOURS: Final = 8
# Entries whose observations are kept.
MAX_OBSERVED: Final = 20_000


class Lessons:
    """Judges entries of an index and its mirror."""

    def __init__(self, index: HotIndex, mirror: Mirror, brake: Brake, clock: Clock) -> None:
        self._index = index
        self._mirror = mirror
        self._brake = brake
        self._clock = clock
        self._observations: OrderedDict[str, deque[Observation]] = OrderedDict()

    def is_braked(self, scope: str) -> bool:
        """Whether a scope gives no semantic hits for now."""
        return self._brake.holds(scope, self._clock.monotonic())

    def may_serve(self, kept: KeptEntry, similarity: float, max_error: float) -> bool:
        """Whether an entry that the gate refuses may serve all the same, at this risk."""
        observations = self._observations.get(kept.entry_id)
        return observations is not None and verified.may_serve(observations, similarity, max_error)

    def compare(self, key: pb.EntryKey, fresh: chat_pb2.ChatCompletion, neighbours: Iterable[pb.Neighbour]) -> None:
        """Holds a new answer against those of entries with other words. Raises GatewayError for too many of them."""
        listed = list(neighbours)
        if len(listed) > MAX_NEIGHBOURS:
            raise GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, f"neighbours: at most {MAX_NEIGHBOURS} are compared")
        for neighbour in listed:
            kept = self._index.peek(neighbour.entry_id)
            # Those of others are not there, as far as anybody may learn.
            if kept is None or (kept.tenant, kept.namespace) != (mark(key.tenant), mark(key.namespace)):
                continue
            verdict = agreement.compare(fresh, pb.Entry.FromString(kept.data).completion)
            metrics.COMPARISONS.labels("served" if neighbour.served else "neighbour", verdict.value).inc()
            if verdict is not Agreement.UNKNOWN:
                self._observe(kept, Observation(neighbour.similarity, verdict is Agreement.SAME))
                if neighbour.served:
                    self._judge(kept, is_right=verdict is Agreement.SAME)

    async def report(self, tenant: str, entry_id: str, tier: "pb.Tier.ValueType", *, is_right: bool) -> None:
        """What somebody says of an answer that was served. Raises GatewayError NOT_FOUND."""
        kept = self._index.peek(entry_id)
        if kept is None or kept.tenant != mark(tenant):
            raise GatewayError(ErrorReason.ERROR_REASON_NOT_FOUND, "there is no such entry")
        metrics.REPORTS.labels("right" if is_right else "wrong").inc()
        if tier == pb.TIER_SEMANTIC:
            self._judge(kept, is_right=is_right)
        elif not is_right:
            wrong = EntryFilter(entry_id=entry_id)
            self._index.remove(wrong)
            await self._mirror.remove(wrong)

    def _observe(self, kept: KeptEntry, observation: Observation) -> None:
        observations = self._observations.get(kept.entry_id)
        if observations is None:
            observations = self._observations[kept.entry_id] = deque(maxlen=MAX_OBSERVATIONS)
            if len(self._observations) > MAX_OBSERVED:
                self._observations.popitem(last=False)
        self._observations.move_to_end(kept.entry_id)
        observations.append(observation)

    def _judge(self, kept: KeptEntry, *, is_right: bool) -> None:
        """Counts a hit whose truth is known, for the entry and for its scope."""
        if kept.wording is None:
            return
        now = self._clock.monotonic()
        scope = kept.wording.scope
        self._brake.note(scope, now, is_wrong=not is_right)
        metrics.BRAKED_SCOPES.set(self._brake.held_count(now))
        if not is_right:
            quarantined = replace(kept, wording=None)
            self._mirror.replace(quarantined, self._index.put(quarantined))
            metrics.QUARANTINES.inc()
            log.warning("entry_quarantined", entry_id=kept.entry_id, scope_braked=self._brake.holds(scope, now))
