"""What the ledger has said of keys, by their digests, so that the usual request asks nobody.

While the ledger tells of changes, what it said of a key holds for half a minute; while it does not, for two seconds. What is older than
that still serves for a while when the ledger cannot be asked.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from joulegate.ledger.v1.key_pb2 import ApiKey
from services.runtime.identity import Caller, ModelScope

WATCHED_S: Final = 30.0
UNWATCHED_S: Final = 2.0
UNKNOWN_S: Final = 2.0
STALE_S: Final = 600.0
CAPACITY: Final = 10_000


class Standing(NamedTuple):
    """Whose a key is, and until when, in seconds since 1970; or why it is refused."""

    caller: Caller
    expires_at: float = math.inf
    refusal: str = ""


class Kept(NamedTuple):
    """What was said, at `asked_at` monotonic seconds; no standing: there is no such key."""

    standing: Standing | None
    asked_at: float


def standing_of(key: ApiKey) -> Standing:
    """A key of the ledger as the router sees it."""
    if key.organisation:
        tenant = f"organisation:{key.organisation}"
    elif key.team:
        tenant = f"team:{key.team}"
    else:
        tenant = f"key:{key.key_id}"
    caller = Caller(key.key_id, tenant, ModelScope(key.allowed_models) if key.allowed_models else None)
    refusal = ""
    if key.HasField("revoke_time"):
        refusal = "This API key has been revoked."
    elif not key.enabled:
        refusal = "This API key is disabled."
    return Standing(caller, key.expire_time.ToNanoseconds() / 1e9 if key.HasField("expire_time") else math.inf, refusal)


class KeyCache:
    """Two bounded tables, lest a flood of made-up keys drive the real ones out."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._known: OrderedDict[bytes, Kept] = OrderedDict()
        self._unknown: OrderedDict[bytes, Kept] = OrderedDict()
        # Whether the ledger tells of changes.
        self.is_watched = False
        # Counts changes: what was asked before one may be told after it.
        self.epoch = 0

    def fresh(self, digest: bytes, now: float) -> Kept | None:
        """What holds at `now` in monotonic seconds; None: the ledger must be asked."""
        kept = self._known.get(digest)
        if kept is not None:
            if now - kept.asked_at >= (WATCHED_S if self.is_watched else UNWATCHED_S):
                return None
            self._known.move_to_end(digest)
            return kept
        kept = self._unknown.get(digest)
        return kept if kept is not None and now - kept.asked_at < UNKNOWN_S else None

    def stale(self, digest: bytes, now: float) -> Kept | None:
        """What may serve when the ledger cannot be asked."""
        kept = self._known.get(digest)
        return kept if kept is not None and now - kept.asked_at < STALE_S else None

    def put(self, digest: bytes, standing: Standing | None, now: float, epoch: int) -> Kept:
        """Keeps what the ledger said to a question that was asked in that epoch."""
        kept = Kept(standing, now if epoch == self.epoch else now - WATCHED_S)
        table, other = (self._unknown, self._known) if standing is None else (self._known, self._unknown)
        other.pop(digest, None)
        table[digest] = kept
        table.move_to_end(digest)
        if len(table) > self._capacity:
            table.popitem(last=False)
        return kept

    def drop(self, digests: Iterable[bytes]) -> None:
        """Forgets keys that changed."""
        self.epoch += 1
        for digest in digests:
            self._known.pop(digest, None)
            self._unknown.pop(digest, None)

    def age(self, now: float) -> None:
        """Has every key asked for again: changes may have gone unheard."""
        self.epoch += 1
        self._unknown.clear()
        for digest, kept in self._known.items():
            self._known[digest] = kept._replace(asked_at=min(kept.asked_at, now - WATCHED_S))
