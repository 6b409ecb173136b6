"""The backlog: whatever the order of events and failures, the store ends up as memory is."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.backlog import MAX_REMOVALS, Backlog, Batch
from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import KeptEntry, mark
from services.cache.rows import PIECE_BYTES, row_ids
from tests.unit.cache.samples import kept


class Disk:
    """What a store does with batches, by row."""

    def __init__(self) -> None:
        self.rows: dict[str, KeptEntry] = {}

    def apply(self, batch: Batch, is_cut: bool = False) -> None:
        self.rows = {row_id: entry for row_id, entry in self.rows.items() if not any(chosen.matches(entry) for chosen in batch.removals)}
        for row_id in batch.row_ids_to_delete:
            self.rows.pop(row_id, None)
        if not is_cut:
            self.rows |= {row_id: entry for entry in batch.entries_to_write for row_id in row_ids(entry.entry_id, len(entry.data))}

    def whole(self) -> dict[str, KeptEntry]:
        whole = {}
        for entry in self.rows.values():
            if all(self.rows.get(row_id) == entry for row_id in row_ids(entry.entry_id, len(entry.data))):
                whole[entry.entry_id] = entry
        return whole


numbers = st.integers(1, 4)
filters = st.one_of(
    st.builds(lambda number: EntryFilter(entry_id=kept(number).entry_id), numbers),
    st.sampled_from([EntryFilter(model=mark("small")), EntryFilter(model=mark("large")), EntryFilter(tenant=mark("acme")), EntryFilter()]),
)
events = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.tuples(numbers, st.sampled_from(["small", "large"]), st.integers(1, 3))),
        st.tuples(st.just("evict"), numbers),
        st.tuples(st.just("remove"), filters),
        st.tuples(st.just("take"), st.integers(1, 4)),
        st.tuples(st.just("succeed"), st.none()),
        st.tuples(st.just("fail"), st.booleans()),
    ),
    max_size=50,
)


@given(events)
def test_store_ends_up_as_memory_is(sequence: list[tuple[str, object]]) -> None:
    backlog, disk, memory = Backlog(limit=100), Disk(), dict[str, KeptEntry]()
    in_flight: Batch | None = None
    for moment, (name, argument) in enumerate(sequence):
        match name, argument:
            case "store", (int(number), str(model), int(pieces)):
                entry = kept(number, model=model, size=pieces * PIECE_BYTES, created_us=moment)
                memory[entry.entry_id] = entry
                backlog.write(entry)
            case "evict", int(number):
                evicted = memory.pop(kept(number).entry_id, None)
                if evicted is not None:
                    backlog.delete(evicted)
            case "remove", EntryFilter() as chosen:
                memory = {entry_id: entry for entry_id, entry in memory.items() if not chosen.matches(entry)}
                backlog.remove(chosen)
            case "take", int(max_rows) if in_flight is None:
                in_flight = backlog.take(max_rows)
            case "succeed", _ if in_flight is not None:
                disk.apply(in_flight)
                in_flight = None
            case "fail", bool(is_half_done) if in_flight is not None:
                if is_half_done:
                    disk.apply(in_flight, is_cut=True)
                backlog.give_back(in_flight)
                in_flight = None
        # A restart now would find what memory has or an older state of it, but never more than was told.
        assert all(entry == memory.get(entry_id) or backlog.supersedes(entry) or in_flight for entry_id, entry in disk.whole().items())
    if in_flight is not None:
        disk.apply(in_flight)
    while backlog:
        disk.apply(backlog.take(2))
    assert disk.whole() == memory


def test_failed_write_does_not_return_when_it_was_removed_meanwhile() -> None:
    backlog, disk, entry = Backlog(limit=10), Disk(), kept(model="small")
    backlog.write(entry)
    in_flight = backlog.take(10)
    backlog.remove(EntryFilter(model=mark("small")))
    backlog.give_back(in_flight)
    while backlog:
        disk.apply(backlog.take(10))
    assert disk.whole() == {}


def test_failed_write_does_not_replace_a_newer_one() -> None:
    backlog, old, new = Backlog(limit=10), kept(created_us=1), kept(created_us=2)
    backlog.write(old)
    in_flight = backlog.take(10)
    backlog.write(new)
    backlog.give_back(in_flight)
    assert backlog.take(10).entries_to_write == [new]


def test_what_another_cache_was_told_to_remove_is_not_written_and_not_told_again() -> None:
    backlog, entry, other = Backlog(limit=10), kept(1), kept(2, tenant="emca")
    backlog.write(entry)
    backlog.write(other)
    backlog.forget(EntryFilter(tenant=mark("acme")))
    batch = backlog.take(10)
    assert (batch.removals, batch.entries_to_write) == ((), [other])
    assert batch.row_ids_to_delete == [f"{entry.entry_id}-00000"]


def test_oldest_change_is_dropped_and_counted_when_the_backlog_is_full() -> None:
    backlog = Backlog(limit=2)
    for number in (1, 2, 3):
        backlog.write(kept(number))
    assert backlog.dropped_count == 1
    assert backlog.take(10).entries_to_write == [kept(2), kept(3)]


def test_batch_is_bounded_by_rows() -> None:
    backlog = Backlog(limit=10)
    for number in range(1, 5):
        backlog.write(kept(number, size=2 * PIECE_BYTES))
    assert len(backlog.take(3).changes) == 2
    assert len(backlog) == 2


def test_too_many_invalidations_become_one_of_everything() -> None:
    backlog = Backlog(limit=10)
    for number in range(MAX_REMOVALS + 1):
        backlog.remove(EntryFilter(tenant=mark(str(number))))
    assert backlog.take(1).removals == (EntryFilter(),)
