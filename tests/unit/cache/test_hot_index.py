"""The hot index against a model that is slow and obvious."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from services.cache.entry_filter import EntryFilter
from services.cache.hot_index import HotIndex
from services.cache.kept_entry import KeptEntry, mark
from tests.unit.cache.samples import kept, newer

MAX_ENTRIES, MAX_BYTES = 4, 200


@dataclass
class Model:
    """Entries in order of use, coldest first."""

    entries: list[KeptEntry] = field(default_factory=list)

    def find(self, entry_id: str) -> KeptEntry | None:
        return next((entry for entry in self.entries if entry.entry_id == entry_id), None)

    def put(self, entry: KeptEntry) -> list[KeptEntry]:
        self.entries = [other for other in self.entries if other.entry_id != entry.entry_id] + [entry]
        evicted = []
        while len(self.entries) > MAX_ENTRIES or self.size > MAX_BYTES:
            evicted.append(self.entries.pop(0))
        return evicted

    @property
    def size(self) -> int:
        return sum(len(entry.data) for entry in self.entries)

    def get(self, entry_id: str, now: int, max_age: int | None) -> KeptEntry | None:
        entry = self.find(entry_id)
        if entry is None or entry.expires_us <= now or (max_age is not None and now - entry.created_us > max_age):
            return None
        self.entries.remove(entry)
        self.entries.append(entry)
        return entry

    def restore(self, entry: KeptEntry, now: int) -> bool:
        fits = len(self.entries) < MAX_ENTRIES and self.size + len(entry.data) <= MAX_BYTES
        if entry.expires_us <= now or self.find(entry.entry_id) or not fits:
            return False
        self.entries.insert(0, entry)
        return True

    def drop(self, doomed: list[KeptEntry]) -> list[KeptEntry]:
        self.entries = [entry for entry in self.entries if entry not in doomed]
        return doomed


numbers = st.integers(1, 7)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), numbers, st.integers(10, 90), st.integers(1, 30)),
        st.tuples(st.just("restore"), numbers, st.integers(10, 90), st.integers(1, 30)),
        st.tuples(st.just("get"), numbers, st.none() | st.integers(-1, 20), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 15), st.just(0), st.just(0)),
        st.tuples(st.just("expire"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("remove"), numbers, st.integers(0, 3), st.just(0)),
    ),
    max_size=60,
)


def tenant_of(number: int) -> str:
    return "odd" if number % 2 else "even"


def filter_of(number: int, kind: int) -> EntryFilter:
    entry = kept(number, tenant_of(number))
    return [
        EntryFilter(entry_id=entry.entry_id),
        EntryFilter(tenant=mark(tenant_of(number))),
        EntryFilter(entry_id=entry.entry_id, tenant=mark("odd")),
        EntryFilter(),
    ][kind]


@given(operations)
def test_index_behaves_as_the_model_in_any_sequence(sequence: list[tuple[str, int, int, int]]) -> None:
    index, model, now = HotIndex(MAX_ENTRIES, MAX_BYTES), Model(), 0
    for name, number, argument, ttl in sequence:
        match name:
            case "put":
                entry = kept(number, tenant_of(number), size=argument, created_us=now, ttl_us=ttl)
                assert index.put(entry) == model.put(entry)
            case "restore":
                entry = kept(number, tenant_of(number), size=argument, created_us=now, ttl_us=ttl)
                assert index.restore(entry, now) == model.restore(entry, now)
            case "get":
                entry_id = kept(number, tenant_of(number)).entry_id
                assert index.get(entry_id, now, argument) == model.get(entry_id, now, argument)
            case "wait":
                now += number
            case "expire":
                expired = model.drop([entry for entry in model.entries if entry.expires_us <= now])
                assert sorted(index.expire(now), key=lambda entry: entry.entry_id) == sorted(expired, key=lambda entry: entry.entry_id)
            case "remove":
                chosen = filter_of(number, argument)
                assert index.remove(chosen) == len(model.drop([entry for entry in model.entries if chosen.matches(entry)]))
        assert (len(index), index.size_bytes) == (len(model.entries), model.size)


def test_expired_entry_never_serves() -> None:
    index = HotIndex(10, 1000)
    entry = kept(ttl_us=5)
    index.put(entry)
    assert index.get(entry.entry_id, 4) is entry
    assert index.get(entry.entry_id, 5) is None


def test_storing_again_and_again_keeps_the_expiry_heap_small() -> None:
    index = HotIndex(10, 1000)
    for moment in range(5000):
        index.put(kept(created_us=moment))
    assert len(index._expiries) < 1100


def test_entry_stored_again_lives_as_long_as_its_newest_version() -> None:
    index = HotIndex(10, 1000)
    entry = kept(ttl_us=5)
    index.put(entry)
    index.put(newer(entry, expires_us=50))
    assert index.expire(10) == []
    assert len(index) == 1
