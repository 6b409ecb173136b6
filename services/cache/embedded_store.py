"""The embedded store: a collection of Milvus Lite, in this process and by its own Python interface. Everything here blocks.

Memory answers what is asked, so nothing here is searched by vector, and an entry's vector is only kept: as bytes, in its first row. As a
vector of the collection each of its numbers would be looked at, which took as long as all the rest of a row. Each field takes its time
too, so the digests that invalidations ask for lie together in one text, and what none asks for in another.
"""

import fcntl
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from services.cache.backlog import Batch
from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import KeptEntry, mark
from services.cache.rows import Row, entries_of, expression, rows_of

# A change of the schema, or of what a row means, is a new name, as is another embedder: old rows are never misread, vectors never mixed.
_FAMILY = "entries_v3_"
# What the version before this one wrote, a Row to a row, is taken over.
_FORMER_FAMILY = "entries_v2_"
_FAMILIES = (_FAMILY, _FORMER_FAMILY, "exact_entries_v1")
# Milvus Lite demands a vector for each row, of at least one number.
_NO_VECTOR = [0.0]
# Milvus Lite logs every row before it answers, which outlives the process; flushing turns the log into a segment and keeps restarts fast.
# Flushing after every batch cost more than the writes did.
_ROWS_PER_FLUSH = 20_000
_ROWS_TAKEN_OVER = 500


class StoreInUseError(Exception):
    """Another process owns the folder."""


class _Content(msgspec.Struct, frozen=True):
    """What a row has beside what is asked for."""

    value: dict[str, str]
    piece_count: int
    microjoules: int
    scope: str
    words: dict[str, str]
    # As little-endian 32-bit floats; None where there are no words, or no vector yet.
    vector: bytes | None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Content).decode


def check_unowned(path: Path) -> None:
    """Raises StoreInUseError when a process holds the folder of an embedded store. Takes nothing itself."""
    # Milvus Lite's own lock file: asking it costs nothing, while importing Milvus to be refused costs half a second.
    try:
        lock = (path / "LOCK").open("rb")
    except FileNotFoundError:
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreInUseError(f"{path} is in use by another cache process; several caches need MILVUS_URI") from error


class EmbeddedStore:
    """Holds `path` while open. One collection for each space of vectors, which `fingerprint` names."""

    def __init__(self, path: Path, fingerprint: str = "none") -> None:
        self._path = path
        self._space = mark(fingerprint)[:16]
        self._database: Any = None
        self._collection: Any = None
        self._unflushed_rows = 0

    def open(self) -> None:
        # Imported here, in the store's thread: it takes half a second.
        from milvus_lite import MilvusLite

        # It logs, with tracebacks, what it also raises; we log it once.
        logging.getLogger("milvus_lite").setLevel(logging.CRITICAL + 1)
        check_unowned(self._path)
        self._database = MilvusLite(str(self._path))
        name = _FAMILY + self._space
        self._collection = self._database.get_collection(name) if self._database.has_collection(name) else self._created(name)
        self._take_over(_FORMER_FAMILY + self._space)
        # The folder is ours alone: what an earlier version or another embedder left there would lie there for ever.
        for other in self._database.list_collections():
            if other != name and other.startswith(_FAMILIES):
                self._database.drop_collection(other)

    def heads(self, now_us: int) -> list[tuple[str, int]]:
        """Row ids and creation times of what has not expired."""
        rows = self._collection.query(f"expires_us > {now_us}", output_fields=["row_id", "created_us"])
        return [(row["row_id"], row["created_us"]) for row in rows]

    def read(self, row_ids: list[str]) -> list[KeptEntry]:
        """The whole entries among these rows."""
        return list(entries_of(_rows(self._collection.get(row_ids))))

    def apply(self, batch: Batch, now_us: int) -> None:
        """Does a batch's work, in its order."""
        for chosen in batch.removals:
            self._delete(_expression(chosen))
        if deleted := batch.row_ids_to_delete:
            self._collection.delete(deleted)
        records = [_record(row) for kept in batch.entries_to_write for row in rows_of(kept)]
        if records:
            self._collection.upsert(records)
        self._unflushed_rows += len(records) + len(deleted)
        if self._unflushed_rows >= _ROWS_PER_FLUSH:
            self._collection.flush()
            self._unflushed_rows = 0

    def sweep(self, now_us: int) -> None:
        """Deletes what has expired."""
        self._delete(f"expires_us <= {now_us}")

    def close(self) -> None:
        """Lets go of everything. May be called at any time, also when `open` failed."""
        database, self._database, self._collection = self._database, None, None
        if database is not None:
            database.close()

    def _delete(self, asked: str) -> None:
        self._collection.delete([row["row_id"] for row in self._collection.query(asked, output_fields=["row_id"])])

    def _created(self, name: str) -> Any:
        from milvus_lite import CollectionSchema, DataType, FieldSchema

        fields = [FieldSchema("row_id", DataType.VARCHAR, is_primary=True)]
        fields += [FieldSchema(name, DataType.INT64) for name in ("created_us", "expires_us")]
        fields += [FieldSchema(name, DataType.VARCHAR) for name in ("marks", "content")]
        fields.append(FieldSchema("vector", DataType.FLOAT_VECTOR, dim=len(_NO_VECTOR)))
        return self._database.create_collection(name, CollectionSchema(fields))

    def _take_over(self, name: str) -> None:
        """Copies the rows of the former version. What they were in goes only when all of them are here."""
        if not self._database.has_collection(name):
            return
        former = self._database.get_collection(name)
        former.load()
        row_ids = [row["row_id"] for row in former.query(output_fields=["row_id"])]
        for start in range(0, len(row_ids), _ROWS_TAKEN_OVER):
            rows = former.get(row_ids[start : start + _ROWS_TAKEN_OVER], output_fields=list(Row.__annotations__))
            for row in rows:
                # As they lie there: text.
                row.update({name: msgspec.json.decode(row[name]) for name in ("value", "words")})
            self._collection.upsert([_record(row) for row in rows])


def _record(row: Row) -> dict[str, Any]:
    """A row as the collection has it."""
    vector = None if row["vector"] is None or not row["scope"] else np.asarray(row["vector"], "<f4").tobytes()
    content = _Content(row["value"], row["piece_count"], row["microjoules"], row["scope"], row["words"], vector)
    return {
        "row_id": row["row_id"],
        "created_us": row["created_us"],
        "expires_us": row["expires_us"],
        "marks": _marks(row),
        "content": _encode(content).decode(),
        "vector": _NO_VECTOR,
    }


def _marks(row: Row) -> str:
    tags = [f"tag:{tag}" for tag in row["tags"]]
    return " ".join([f"tenant:{row['tenant']}", f"namespace:{row['namespace']}", f"model:{row['model']}", *tags])


def _expression(chosen: EntryFilter) -> str:
    # All are digests of one length: nothing in them needs escaping, and none is a part of another.
    asked = {"tenant": chosen.tenant, "namespace": chosen.namespace, "model": chosen.model, "tag": chosen.tag}
    return expression(chosen, [f'marks like "%{name}:{value}%"' for name, value in asked.items() if value is not None])


def _rows(records: Iterable[dict[str, Any]]) -> Iterable[Row]:
    """The rows that can be read."""
    for record in records:
        try:
            content = _decode(record["content"])
        except msgspec.DecodeError:
            # Broken on the disk: an entry of which this is a piece is not whole.
            continue
        tenant, namespace, model, *tags = (each.partition(":")[2] for each in record["marks"].split(" "))
        yield Row(
            row_id=record["row_id"],
            tenant=tenant,
            namespace=namespace,
            model=model,
            created_us=record["created_us"],
            expires_us=record["expires_us"],
            microjoules=content.microjoules,
            tags=tags,
            piece_count=content.piece_count,
            value=content.value,
            scope=content.scope,
            words=content.words,
            vector=None if content.vector is None else np.frombuffer(content.vector, "<f4"),
        )
