"""A small copy of recent answers in the router itself: the cheapest hit is the call that is not made."""

from collections import Counter, OrderedDict
from dataclasses import dataclass

from joulegate.cache.v1 import cache_service_pb2 as cache_pb

Address = tuple[str, str, bytes]

# Callers choose the names of models: beyond so many they are counted together.
MAX_MODELS = 256
OTHER = "other"


@dataclass(frozen=True, slots=True)
class _Kept:
    entry: cache_pb.Entry
    size: int
    kept_at: float


class NearCache:
    """Least recently used entries within `max_bytes`, each for at most `ttl_s` and its own lifetime."""

    def __init__(self, max_bytes: int, ttl_s: float) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._entries: OrderedDict[Address, _Kept] = OrderedDict()
        self._bytes = 0
        # Answers given, by the model asked for.
        self.hits: Counter[str] = Counter()

    def count(self, model: str) -> None:
        """Notes that an entry served a request for this model."""
        self.hits[model if model in self.hits or len(self.hits) < MAX_MODELS else OTHER] += 1

    def forget(self, tenant: str | None) -> None:
        """Drops what is kept for a tenant; of all tenants where none is named. It may still be right, but is only a copy."""
        for address in [address for address in self._entries if tenant is None or address[0] == tenant]:
            self._remove(address)

    def get(self, key: cache_pb.EntryKey, monotonic: float, now: float) -> cache_pb.Entry | None:
        """The entry at `monotonic` seconds, `now` on the wall clock; None when absent, stale or expired."""
        address = _address(key)
        kept = self._entries.get(address)
        if kept is None:
            return None
        if monotonic - kept.kept_at >= self._ttl_s or now >= kept.entry.expire_time.seconds:
            self._remove(address)
            return None
        self._entries.move_to_end(address)
        return kept.entry

    def put(self, key: cache_pb.EntryKey, entry: cache_pb.Entry, monotonic: float) -> None:
        """Keeps the entry, unless it alone is larger than a quarter of the room."""
        address, size = _address(key), entry.ByteSize()
        self._remove(address)
        if size * 4 > self._max_bytes:
            return
        self._entries[address] = _Kept(entry, size, monotonic)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def _remove(self, address: Address) -> None:
        kept = self._entries.pop(address, None)
        if kept is not None:
            self._bytes -= kept.size


def _address(key: cache_pb.EntryKey) -> Address:
    return (key.tenant, key.namespace, key.digest)
