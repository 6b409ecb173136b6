"""Rows as one message of Milvus' wire protocol, by columns.

What pymilvus' client does with rows takes each apart value by value and reads every text letter by letter: a quarter of what writing a row
to Milvus Lite takes. Columns are what travels, and take a fifth of that.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec

from services.cache.embedders.base import Vectors
from services.cache.rows import Row

_TEXTS = ("row_id", "tenant", "namespace", "model", "scope")
_NUMBERS = ("created_us", "expires_us", "microjoules", "piece_count")
_DOCUMENTS = ("value", "words")
_encode = msgspec.json.Encoder().encode


def upsert_request(collection: str, rows: Sequence[Row], no_vector: Vectors) -> Any:
    """A pymilvus.grpc_gen.milvus_pb2.UpsertRequest; `no_vector` is what rows without words get."""
    # Imported here, in the store's thread: pymilvus takes half a second.
    from pymilvus.grpc_gen import milvus_pb2, schema_pb2

    request = milvus_pb2.UpsertRequest(collection_name=collection, num_rows=len(rows))

    def add(name: str, kind: int, **column: Any) -> None:
        request.fields_data.add(type=kind, field_name=name, scalars=schema_pb2.ScalarField(**column))

    for name in _TEXTS:
        add(name, schema_pb2.VarChar, string_data=schema_pb2.StringArray(data=_column(rows, name)))
    for name in _NUMBERS:
        add(name, schema_pb2.Int64, long_data=schema_pb2.LongArray(data=_column(rows, name)))
    for name in _DOCUMENTS:
        add(name, schema_pb2.JSON, json_data=schema_pb2.JSONArray(data=map(_encode, _column(rows, name))))
    tags = [schema_pb2.ScalarField(string_data=schema_pb2.StringArray(data=row["tags"])) for row in rows]
    add("tags", schema_pb2.Array, array_data=schema_pb2.ArrayArray(data=tags, element_type=schema_pb2.VarChar))
    vectors = ((no_vector if row["vector"] is None else row["vector"]).tolist() for row in rows)
    floats = schema_pb2.FloatArray(data=chain.from_iterable(vectors))
    request.fields_data.add(
        type=schema_pb2.FloatVector, field_name="vector", vectors=schema_pb2.VectorField(dim=len(no_vector), float_vector=floats)
    )
    return request


def _column(rows: Sequence[Row], name: str) -> list[Any]:
    return [row[name] for row in rows]  # type: ignore[literal-required]
