"""The durable store that several caches share: a collection of a Milvus cluster. Everything here blocks."""

import logging
import uuid
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from services.cache.backlog import Batch
from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import KeptEntry, KeptWording, mark
from services.cache.removal_watch import KEPT_US, Removal
from services.cache.rows import MAX_TAGS, Row, entries_of, expression, row_id_of, rows_of

# A change of the schema, or of what a row means, is a new name, as is another embedder: old rows are never misread, vectors never mixed.
_FAMILY = "entries_v2_"
# What caches on one cluster tell each other: one collection for all embedders.
_REMOVALS = "cache_removals_v1"
# Milvus demands a vector per row, and at least two dimensions.
_LEAST_DIMENSION = 2
_MARK_LENGTH = 64
# Bounds each call, retries included, and so how long a stopping process can be held up.
_CALL_S = 10.0
_HEADS_PAGE = 10_000


class MilvusStore:
    """Talks to `uri`. One collection for each space of vectors, which `fingerprint` names."""

    def __init__(self, uri: str, token: str | None, fingerprint: str = "none", dimension: int = 0, origin: str = "") -> None:
        self._uri = uri
        self._token = token or ""
        self._collection = _FAMILY + mark(fingerprint)[:16]
        self._no_vector = [0.0] * max(dimension, _LEAST_DIMENSION)
        # Whose removals are those of one's own.
        self._origin = origin
        self._client: Any = None

    def open(self) -> None:
        # Imported here, in the store's thread: it takes half a second.
        from pymilvus import MilvusClient

        # It logs, with tracebacks, what it also raises; we log it once.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
        # A connection that is not dedicated stays in pymilvus' pool for ever.
        self._client = MilvusClient(uri=self._uri, token=self._token, timeout=_CALL_S, dedicated=True)
        if not self._client.has_collection(self._collection, timeout=_CALL_S):
            self._create_collection()
        self._client.load_collection(self._collection, timeout=_CALL_S)
        self._open_removals()

    def heads(self, now_us: int) -> list[tuple[str, int]]:
        """Row ids and creation times of what has not expired."""
        heads: list[tuple[str, int]] = []
        pages = self._client.query_iterator(
            self._collection,
            batch_size=_HEADS_PAGE,
            filter=f"expires_us > {now_us}",
            output_fields=["row_id", "created_us"],
            timeout=_CALL_S,
        )
        try:
            while page := pages.next():
                heads += [(row["row_id"], row["created_us"]) for row in page]
        finally:
            pages.close()
        return heads

    def read(self, row_ids: list[str]) -> list[KeptEntry]:
        """The whole entries among these rows."""
        rows = self._client.get(self._collection, ids=row_ids, output_fields=list(Row.__annotations__), timeout=_CALL_S)
        return list(entries_of(rows))

    def find(self, entry_id: str, wording: KeptWording | None, count: int) -> list[KeptEntry]:
        """The entry of that id, and the `count` nearest to the words in their scope. May be called by several threads."""
        fields = list(Row.__annotations__)
        # What pymilvus gives looks like a list, and cannot be added to.
        heads = list(self._client.get(self._collection, ids=[row_id_of(entry_id, 0)], output_fields=fields, timeout=_CALL_S))
        if wording is not None:
            vector = np.frombuffer(wording.vector, "<f4")
            scope = f'scope == "{wording.scope}"'
            [found] = self._client.search(
                self._collection, [vector], filter=scope, limit=count, output_fields=fields, anns_field="vector", timeout=_CALL_S
            )
            heads += [hit["entity"] for hit in found]
        whole = {row["row_id"]: row for row in heads}
        rest = [row_id_of(row_id.partition("-")[0], piece) for row_id, row in whole.items() for piece in range(1, row["piece_count"])]
        rows = self._client.get(self._collection, ids=rest, output_fields=fields, timeout=_CALL_S) if rest else []
        return list(entries_of([*whole.values(), *rows]))

    def apply(self, batch: Batch, now_us: int) -> None:
        """Does a batch's work, in its order."""
        client = self._client
        for chosen in batch.removals:
            client.delete(self._collection, filter=_expression(chosen), timeout=_CALL_S)
        if batch.removals:
            self._tell(batch.removals, now_us)
        if deleted := batch.row_ids_to_delete:
            client.delete(self._collection, ids=deleted, timeout=_CALL_S)
        rows = [row for kept in batch.entries_to_write for row in rows_of(kept)]
        if rows:
            # Plain numbers: the client would take an array apart one by one.
            plain = [{**row, "vector": self._no_vector if row["vector"] is None else row["vector"].tolist()} for row in rows]
            client.upsert(self._collection, plain, timeout=_CALL_S)

    def sweep(self, now_us: int) -> None:
        """Deletes what has expired."""
        self._client.delete(self._collection, filter=f"expires_us <= {now_us}", timeout=_CALL_S)
        self._client.delete(_REMOVALS, filter=f"at_us <= {now_us - KEPT_US}", timeout=_CALL_S)

    def removals(self, since_us: int) -> list[Removal]:
        """What other origins have removed since then. May be called by several threads."""
        rows = self._client.query(
            _REMOVALS,
            filter=f'at_us >= {since_us} and origin != "{self._origin}"',
            output_fields=["removal_id", "at_us", "filter"],
            # For the latest: what is not seen now would be seen a poll later.
            consistency_level="Strong",
            timeout=_CALL_S,
        )
        return [Removal(row["removal_id"], row["at_us"], EntryFilter(**row["filter"])) for row in rows]

    def close(self) -> None:
        """Lets go of everything. May be called at any time, also when `open` failed."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _tell(self, removals: Iterable[EntryFilter], now_us: int) -> None:
        rows = [
            {
                "removal_id": uuid.uuid4().hex,
                "at_us": now_us,
                "origin": self._origin,
                "filter": asdict(chosen),
                "vector": np.zeros(_LEAST_DIMENSION, np.float32),
            }
            for chosen in removals
        ]
        self._client.insert(_REMOVALS, rows, timeout=_CALL_S)

    def _open_removals(self) -> None:
        from pymilvus import DataType

        if not self._client.has_collection(_REMOVALS, timeout=_CALL_S):
            schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("removal_id", DataType.VARCHAR, is_primary=True, max_length=_MARK_LENGTH)
            schema.add_field("origin", DataType.VARCHAR, max_length=_MARK_LENGTH)
            schema.add_field("at_us", DataType.INT64)
            schema.add_field("filter", DataType.JSON)
            self._create(_REMOVALS, schema, _LEAST_DIMENSION)
        self._client.load_collection(_REMOVALS, timeout=_CALL_S)

    def _create_collection(self) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row_id", DataType.VARCHAR, is_primary=True, max_length=_MARK_LENGTH)
        for name in ("tenant", "namespace", "model", "scope"):
            schema.add_field(name, DataType.VARCHAR, max_length=_MARK_LENGTH)
        for name in ("created_us", "expires_us", "microjoules", "piece_count"):
            schema.add_field(name, DataType.INT64)
        schema.add_field("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=MAX_TAGS, max_length=_MARK_LENGTH)
        for name in ("value", "words"):
            schema.add_field(name, DataType.JSON)
        self._create(self._collection, schema, len(self._no_vector))

    def _create(self, name: str, schema: Any, dimension: int) -> None:
        from pymilvus import DataType

        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        index = self._client.prepare_index_params()
        # All vectors have length 1, or none: the inner product is the cosine.
        index.add_index("vector", index_type="FLAT", metric_type="IP")
        self._client.create_collection(name, schema=schema, consistency_level="Bounded", timeout=_CALL_S)
        # Waiting for an index over nothing would take half a second.
        self._client.create_index(name, index, sync=False, timeout=_CALL_S)


def _expression(chosen: EntryFilter) -> str:
    # All values are hexadecimal digests, so nothing in them needs escaping.
    marks = [f'{name} == "{value}"' for name in ("tenant", "namespace", "model") if (value := getattr(chosen, name)) is not None]
    if chosen.tag is not None:
        marks.append(f'array_contains(tags, "{chosen.tag}")')
    return expression(chosen, marks)
