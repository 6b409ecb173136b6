"""The hot index against a model that is slow and obvious."""

from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.cache.entry_filter import EntryFilter
from services.cache.hot_index import HotIndex
from services.cache.kept_entry import KeptEntry, mark
from tests.unit.cache.samples import kept, newer, wording

MAX_ENTRIES, MAX_BYTES, TENANT_MAX_BYTES = 4, 200, 150


@dataclass
class Model:
    """Entries and their ranks: joules per byte over what left last at the time of the last use, then the time of that use."""

    entries: dict[KeptEntry, tuple[float, int]] = field(default_factory=dict)
    inflation: dict[str, float] = field(default_factory=dict)
    uses: int = 0

    def find(self, entry_id: str) -> KeptEntry | None:
        return next((entry for entry in self.entries if entry.entry_id == entry_id), None)

    def use(self, entry: KeptEntry, use: int) -> None:
        self.entries[entry] = (self.inflation.setdefault(entry.tenant, 0.0) + entry.microjoules / entry.size_bytes, use)

    def put(self, entry: KeptEntry) -> list[KeptEntry]:
        self.drop([other for other in self.entries if other.entry_id == entry.entry_id])
        evicted = []
        while (victim := self.victim(entry)) is not None:
            self.inflation[victim.tenant] = self.entries[victim][0]
            self.drop([victim])
            evicted.append(victim)
        self.uses += 1
        self.use(entry, self.uses)
        return evicted

    def victim(self, entry: KeptEntry) -> KeptEntry | None:
        if self.size_of(entry.tenant) and self.size_of(entry.tenant) + entry.size_bytes > TENANT_MAX_BYTES:
            tenant = entry.tenant
        elif self.entries and (len(self.entries) >= MAX_ENTRIES or self.size + entry.size_bytes > MAX_BYTES):
            tenant = min((other.tenant for other in self.entries), key=lambda tenant: (-self.size_of(tenant), tenant))
        else:
            return None
        return min((other for other in self.entries if other.tenant == tenant), key=lambda other: self.entries[other])

    def size_of(self, tenant: str) -> int:
        return sum(entry.size_bytes for entry in self.entries if entry.tenant == tenant)

    @property
    def size(self) -> int:
        return sum(entry.size_bytes for entry in self.entries)

    def get(self, entry_id: str, now: int, max_age: int | None) -> KeptEntry | None:
        entry = self.find(entry_id)
        if entry is None or entry.expires_us <= now or (max_age is not None and now - entry.created_us > max_age):
            return None
        self.uses += 1
        self.use(entry, self.uses)
        return entry

    def restore(self, entry: KeptEntry, now: int) -> bool:
        if entry.expires_us <= now or self.find(entry.entry_id) or self.victim(entry):
            return False
        self.use(entry, min([0, *(use for _, use in self.entries.values())]) - 1)
        return True

    def drop(self, doomed: list[KeptEntry]) -> list[KeptEntry]:
        self.entries = {entry: rank for entry, rank in self.entries.items() if entry not in doomed}
        self.inflation = {tenant: rank for tenant, rank in self.inflation.items() if self.size_of(tenant)}
        return doomed


numbers = st.integers(1, 7)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), numbers, st.integers(10, 90), st.integers(1, 30), st.integers(0, 500)),
        st.tuples(st.just("restore"), numbers, st.integers(10, 90), st.integers(1, 30), st.integers(0, 500)),
        st.tuples(st.just("get"), numbers, st.none() | st.integers(-1, 20), st.just(0), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 15), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("expire"), st.just(0), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("remove"), numbers, st.integers(0, 3), st.just(0), st.just(0)),
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
def test_index_behaves_as_the_model_in_any_sequence(sequence: list[tuple[str, int, int, int, int]]) -> None:
    index, model, now = HotIndex(MAX_ENTRIES, MAX_BYTES, TENANT_MAX_BYTES), Model(), 0
    for name, number, argument, ttl, joules in sequence:
        match name:
            case "put":
                entry = kept(number, tenant_of(number), size=argument, created_us=now, ttl_us=ttl, microjoules=joules)
                assert index.put(entry) == model.put(entry)
            case "restore":
                entry = kept(number, tenant_of(number), size=argument, created_us=now, ttl_us=ttl, microjoules=joules)
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
    assert len(index._expiries._heap) < 200


def test_entry_stored_again_lives_as_long_as_its_newest_version() -> None:
    index = HotIndex(10, 1000)
    entry = kept(ttl_us=5)
    index.put(entry)
    index.put(newer(entry, expires_us=50))
    assert index.expire(10) == []
    assert len(index) == 1


def test_what_saves_most_joules_per_byte_stays() -> None:
    index = HotIndex(3, 1000)
    dear, cheap, newest = kept(1, microjoules=4000), kept(2, microjoules=40), kept(3, microjoules=40)
    for entry in (dear, cheap, newest):
        index.put(entry)
    assert index.put(kept(4, microjoules=40)) == [cheap]
    assert index.put(kept(5, microjoules=40)) == [newest]


def test_what_is_dear_and_never_used_leaves_at_last() -> None:
    index = HotIndex(2, 1000)
    index.put(kept(0, microjoules=400))
    evicted = [entry for number in range(1, 30) for entry in index.put(kept(number, microjoules=40))]
    assert kept(0, microjoules=400) in evicted


def test_tenant_that_fills_the_cache_makes_room_itself() -> None:
    index = HotIndex(100, 400)
    for number in range(3):
        index.put(kept(number, "small"))
    for number in range(3, 50):
        index.put(kept(number, "greedy"))
    assert index.holdings() == {mark("small"): (3, 120), mark("greedy"): (7, 280)}


def test_nearest_questions_of_a_scope_come_first_and_none_of_another() -> None:
    index = HotIndex(100, 100_000)
    east, north_east, north = wording("s", 1, 0), wording("s", 1, 1), wording("s", 0, 1)
    for number, own in enumerate((north, east, north_east)):
        index.put(kept(number, wording=own))
    index.put(kept(9, wording=wording("other", 1, 0)))
    vector = np.array([1, 0], np.float32)
    found = list(index.near("s", vector, 0.5, 8, 0))
    assert [(entry.entry_id, round(similarity, 3)) for entry, similarity in found] == [(kept(1).entry_id, 1.0), (kept(2).entry_id, 0.707)]
    assert [entry.entry_id for entry, _ in index.near("s", vector, 0.5, 1, 0)] == [kept(1).entry_id]
    assert list(index.near("nowhere", vector, 0.0, 8, 0)) == []


def test_question_that_is_too_old_or_expired_does_not_take_the_place_of_the_next() -> None:
    index = HotIndex(100, 100_000)
    index.put(kept(1, wording=wording("s", 1, 0), ttl_us=5))
    index.put(kept(2, wording=wording("s", 1, 0.1), created_us=1, ttl_us=100))
    index.put(kept(3, wording=wording("s", 1, 0.2), created_us=8, ttl_us=100))
    vector = np.array([1, 0], np.float32)
    assert [entry.entry_id for entry, _ in index.near("s", vector, 0.5, 1, 10)] == [kept(2).entry_id]
    assert [entry.entry_id for entry, _ in index.near("s", vector, 0.5, 1, 10, 5)] == [kept(3).entry_id]


STEPS = st.lists(
    st.tuples(st.sampled_from(("put", "put without a vector", "embed", "remove", "expire")), st.integers(0, 9), st.integers(0, 3)),
    max_size=80,
)


@given(STEPS, st.integers(1, 12))
def test_whatever_leaves_is_found_by_words_no_more(steps: list[tuple[str, int, int]], max_entries: int) -> None:
    index, now = HotIndex(max_entries, 1 << 20), 0
    vector, vectors = np.array([1, 1], np.float32), {}
    for step, number, scope in steps:
        own = wording(f"s{scope}", 1, number)
        match step:
            case "put" | "put without a vector":
                vectors[kept(number).entry_id] = step == "put"
                index.put(kept(number, wording=own if step == "put" else replace(own, vector=b""), created_us=now, ttl_us=5))
            case "embed":
                for entry in index.unembedded_beside(f"s{scope}", None):
                    index.embed(entry, vector)
                    vectors[entry.entry_id] = True
            case "remove":
                index.remove(EntryFilter(entry_id=kept(number).entry_id))
            case "expire":
                now += 1
                index.expire(now)
        living = {kept(each).entry_id for each in range(10) if index.get(kept(each).entry_id, 0) is not None}
        found = {entry.entry_id for name in range(4) for entry, _ in index.near(f"s{name}", vector, -1, 100, 0)}
        assert found == {entry_id for entry_id in living if vectors[entry_id]}
        waiting = {entry.entry_id for name in range(4) for entry in index.unembedded_beside(f"s{name}", None)}
        assert waiting == living - found
        assert index.semantic_count == len(living)
    index.remove(EntryFilter())
    assert index.size_bytes == 0


def test_an_entry_that_left_gets_no_vector() -> None:
    index = HotIndex(100, 100_000)
    index.put(kept(1, wording=replace(wording("s", 1, 0), vector=b"")))
    [entry] = index.unembedded_beside("s", None)
    index.remove(EntryFilter(entry_id=entry.entry_id))
    index.embed(entry, np.array([1, 0], np.float32))
    assert (index.size_bytes, index.semantic_count) == (0, 0)
