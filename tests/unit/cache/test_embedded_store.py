"""The real Milvus Lite: rows go in, come back after closing, and leave when told. One store serves most tests: each start costs time."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cache.embedded_store import EmbeddedStore, StoreInUseError, check_unowned
from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import KeptEntry, mark
from services.cache.rows import PIECE_BYTES, rows_of
from tests.unit.cache.samples import SECOND_US, kept, newer, tell, wording

TTL_US = 1000 * SECOND_US


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(tmp_path_factory.mktemp("milvus") / "deeper" / "cache.db", "space")
    store.open()
    yield store
    store.close()


@pytest.fixture
def store(opened: EmbeddedStore) -> Iterator[EmbeddedStore]:
    yield opened
    tell(opened, EntryFilter())


def contents(store: EmbeddedStore, now_us: int = 0) -> set[KeptEntry]:
    heads = store.heads(now_us)
    return set(store.read([row_id for row_id, _ in heads])) if heads else set()


@pytest.mark.parametrize("size", [40, PIECE_BYTES, 3 * PIECE_BYTES + 1, 1 << 20])
def test_entry_of_any_size_comes_back(store: EmbeddedStore, size: int) -> None:
    entry = kept(size=size, ttl_us=TTL_US)
    tell(store, entry)
    assert contents(store) == {entry}


def test_what_is_refused_is_a_fault_and_not_forgotten(store: EmbeddedStore) -> None:
    from milvus_lite import MilvusLiteError

    entry = newer(kept(), created_us=1 << 64)
    with pytest.raises(MilvusLiteError, match="created_us"):
        tell(store, entry)


def test_newest_version_replaces_a_longer_one(store: EmbeddedStore) -> None:
    old = kept(size=2 * PIECE_BYTES, ttl_us=TTL_US)
    new = kept(size=50, created_us=1, ttl_us=TTL_US)
    tell(store, old)
    tell(store, new)
    assert contents(store) == {new}


def test_entry_comes_back_with_its_words_vector_tags_and_joules(store: EmbeddedStore) -> None:
    own = wording("0123abcd", 1, 2, -3, text='"Ünïcödé" \' \\ {}\n and all')
    entry = kept(size=2 * PIECE_BYTES, ttl_us=TTL_US, microjoules=7, tags=("faq", "de"), wording=own)
    plain = kept(2, ttl_us=TTL_US)
    tell(store, entry, plain)
    assert contents(store) == {entry, plain}


def test_vectors_of_another_embedder_are_not_read_and_leave_the_folder(tmp_path: Path) -> None:
    path, entry = tmp_path / "cache.db", kept(ttl_us=TTL_US, wording=wording("s", 1, 0, 0))
    for fingerprint, is_there in (("one", False), ("one", True), ("other", False), ("one", False)):
        store = EmbeddedStore(path, fingerprint)
        store.open()
        assert contents(store) == ({entry} if is_there else set())
        if fingerprint == "one":
            tell(store, entry)
        store.close()


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (EntryFilter(tenant=mark("acme")), {3}),
        (EntryFilter(namespace=mark("")), set()),
        (EntryFilter(model=mark("small")), {1, 3}),
        (EntryFilter(entry_id=kept(1).entry_id), {2, 3}),
        (EntryFilter(entry_id=kept(1).entry_id, model=mark("small")), {1, 2, 3}),
        (EntryFilter(tag=mark("faq")), {1, 3}),
        (EntryFilter(tag=mark("faq"), model=mark("large")), {1, 2, 3}),
        (EntryFilter(created_until_us=5), {2}),
        (EntryFilter(), set()),
    ],
)
def test_removal_by_each_filter(store: EmbeddedStore, chosen: EntryFilter, left: set[int]) -> None:
    entries = {
        1: kept(1, size=2 * PIECE_BYTES, ttl_us=TTL_US),
        2: kept(2, model="small", created_us=6, ttl_us=TTL_US, tags=("faq", "de")),
        3: kept(3, tenant="emca", ttl_us=TTL_US),
    }
    tell(store, *entries.values())
    tell(store, chosen)
    assert contents(store) == {entries[number] for number in left}


def test_departed_entry_leaves_with_all_its_rows(store: EmbeddedStore) -> None:
    gone, stays = kept(1, size=3 * PIECE_BYTES, ttl_us=TTL_US), kept(2, ttl_us=TTL_US)
    tell(store, gone, stays)
    tell(store, departed=(gone,))
    assert [row_id.partition("-")[0] for row_id, _ in store.heads(0)] == [stays.entry_id]


def test_expired_rows_are_not_listed_and_swept(store: EmbeddedStore) -> None:
    short, long = kept(1, ttl_us=10), kept(2, ttl_us=TTL_US)
    tell(store, short, long)
    assert contents(store, now_us=10) == {long}
    assert contents(store, now_us=9) == {short, long}
    store.sweep(10)
    assert contents(store, now_us=0) == {long}


def test_many_rows_are_all_listed_through_flushes(store: EmbeddedStore) -> None:
    entries = [kept(number, ttl_us=TTL_US) for number in range(600)]
    for start in range(0, 600, 100):
        tell(store, *entries[start : start + 100])
    assert {row_id.partition("-")[0] for row_id, _ in store.heads(0)} == {entry.entry_id for entry in entries}


def test_reopened_store_has_what_was_written_and_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    path = tmp_path / "cache.db"
    entry = kept(size=2 * PIECE_BYTES, ttl_us=TTL_US)
    first, second = EmbeddedStore(path), EmbeddedStore(path)
    first.open()
    tell(first, entry)
    first.close()
    second.open()
    assert contents(second) == {entry}
    with pytest.raises(StoreInUseError, match="in use by another cache process"):
        check_unowned(path)
    second.close()
    assert set(threading.enumerate()) <= before
    check_unowned(path)


def test_what_the_last_version_kept_is_taken_over_once(tmp_path: Path) -> None:
    path, worded = tmp_path / "cache.db", wording("s" * 40, 1, 0, -3, text="Ünï")
    entries = {kept(1, size=2 * PIECE_BYTES, ttl_us=TTL_US, microjoules=7, tags=("faq",), wording=worded), kept(2, ttl_us=TTL_US)}
    write_as_the_last_version(path, "one", entries)
    write_as_the_last_version(path, "other", {kept(3, ttl_us=TTL_US)})
    store = EmbeddedStore(path, "one")
    store.open()
    assert contents(store) == entries
    tell(store, EntryFilter(entry_id=kept(2).entry_id))
    store.close()
    store.open()
    assert contents(store) == {entry for entry in entries if entry.wording}
    assert len(store._database.list_collections()) == 1
    store.close()


def write_as_the_last_version(path: Path, fingerprint: str, entries: set[KeptEntry]) -> None:
    from milvus_lite import CollectionSchema, DataType, FieldSchema, MilvusLite

    fields = [FieldSchema("row_id", DataType.VARCHAR, is_primary=True, max_length=64)]
    fields += [FieldSchema(name, DataType.VARCHAR, max_length=64) for name in ("tenant", "namespace", "model", "scope")]
    fields += [FieldSchema(name, DataType.INT64) for name in ("created_us", "expires_us", "microjoules", "piece_count")]
    fields += [FieldSchema("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=8, max_length=64)]
    fields += [FieldSchema(name, DataType.JSON) for name in ("value", "words")]
    fields += [FieldSchema("vector", DataType.FLOAT_VECTOR, dim=3)]
    rows = [row for entry in entries for row in rows_of(entry)]
    with MilvusLite(str(path)) as database:
        collection = database.create_collection("entries_v2_" + mark(fingerprint)[:16], CollectionSchema(fields))
        collection.create_index("vector", {"index_type": "FLAT", "metric_type": "IP"})
        collection.insert([{**row, "vector": [0.0] * 3 if row["vector"] is None else row["vector"].tolist()} for row in rows])


def test_unusable_folder_is_an_error_that_leaves_the_store_closable(tmp_path: Path) -> None:
    (tmp_path / "cache.db").write_text("a file where a folder should be")
    store = EmbeddedStore(tmp_path / "cache.db")
    with pytest.raises(OSError, match=r"cache\.db"):
        store.open()
    store.close()
