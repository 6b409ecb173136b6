"""How entries lie in a store: one row per piece of their data, since a value holds at most 65,536 bytes.

The data is text inside JSON: for a cluster pymilvus checks a VARCHAR of a row character by character, which cost more than all the rest.

An entry's rows share its creation time. A reader takes an entry only when all pieces of one creation are there, so that rows left over
from a longer predecessor, or from a write that was cut, are never joined into an answer; they are swept when they expire. The first piece
carries the words that the entry is found by, and their vector.
"""

from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypedDict

import numpy as np
from google.protobuf.message import DecodeError

from joulegate.cache.v1 import cache_service_pb2 as pb
from services.cache.embedders.base import Vectors
from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import KeptEntry, KeptWording

MAX_TAGS = 8
_VALUE_MAX_BYTES = 65_536
_NAME = "base64"
_TEXT = "text"
# Base64 makes four characters of three bytes; around them stand `{"base64":""}`.
PIECE_BYTES = (_VALUE_MAX_BYTES - len(_NAME) - 7) // 4 * 3


class Row(TypedDict):
    row_id: str
    tenant: str
    namespace: str
    model: str
    created_us: int
    expires_us: int
    microjoules: int
    tags: list[str]
    piece_count: int
    value: dict[str, str]
    # Empty where there are no words.
    scope: str
    words: dict[str, str]
    # None where there are no words, or no vector yet; what a cluster has instead is not read.
    vector: Vectors | None


def rows_of(kept: KeptEntry) -> list[Row]:
    """The rows that keep an entry."""
    ids = row_ids(kept.entry_id, len(kept.data))
    rows = [
        Row(
            row_id=row_id,
            tenant=kept.tenant,
            namespace=kept.namespace,
            model=kept.model,
            created_us=kept.created_us,
            expires_us=kept.expires_us,
            microjoules=kept.microjoules,
            tags=list(kept.tags),
            piece_count=len(ids),
            value={_NAME: b64encode(kept.data[piece * PIECE_BYTES : (piece + 1) * PIECE_BYTES]).decode("ascii")},
            scope="",
            words={},
            vector=None,
        )
        for piece, row_id in enumerate(ids)
    ]
    if kept.wording is not None:
        rows[0]["scope"] = kept.wording.scope
        rows[0]["words"] = {_TEXT: kept.wording.text}
        rows[0]["vector"] = np.frombuffer(kept.wording.vector, "<f4") if kept.wording.vector else None
    return rows


def row_ids(entry_id: str, size_bytes: int) -> list[str]:
    """The primary keys of an entry of that size, in the order of its pieces."""
    return [row_id_of(entry_id, piece) for piece in range(max(1, -(-size_bytes // PIECE_BYTES)))]


def row_id_of(entry_id: str, piece: int) -> str:
    return f"{entry_id}-{piece:05d}"


def entries_of(rows: Iterable[Row]) -> Iterator[KeptEntry]:
    """The entries that are whole and readable among the rows."""
    creations: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        creations[row["row_id"].partition("-")[0], row["created_us"]].append(row)
    for (entry_id, _), pieces in creations.items():
        kept = _joined(entry_id, sorted(pieces, key=lambda row: row["row_id"]))
        if kept is not None:
            yield kept


def _joined(entry_id: str, pieces: list[Row]) -> KeptEntry | None:
    first = pieces[0]
    if len(pieces) != first["piece_count"]:
        return None
    try:
        data = b"".join(b64decode(row["value"][_NAME], validate=True) for row in pieces)
        # What is broken on the disk must show here, not in a caller's answer.
        pb.Entry.FromString(data)
        wording = _wording(first)
    except (ValueError, KeyError, TypeError, DecodeError):
        return None
    return KeptEntry(
        entry_id,
        first["tenant"],
        first["namespace"],
        first["model"],
        first["created_us"],
        first["expires_us"],
        data,
        first["microjoules"],
        tuple(first["tags"]),
        wording,
    )


def _wording(row: Row) -> KeptWording | None:
    if not row["scope"]:
        return None
    vector = b"" if row["vector"] is None else np.asarray(row["vector"], "<f4").tobytes()
    return KeptWording.of(row["scope"], row["words"][_TEXT], vector)


def expression(chosen: EntryFilter, marks: Iterable[str]) -> str:
    """The filter in Milvus' language, where `marks` are what a store says of tenant, namespace, model and tag."""
    terms = list(marks)
    if chosen.created_until_us is not None:
        terms.append(f"created_us <= {chosen.created_until_us}")
    if chosen.entry_id is not None:
        terms.append(f'row_id like "{chosen.entry_id}-%"')
    return " and ".join(terms) or "expires_us >= 0"


def reading_plan(heads: Iterable[tuple[str, int]], max_rows: int) -> list[list[str]]:
    """Batches of row ids to read, newest entries first; an entry is never split between batches. A head is a row id and its creation."""
    plan: list[list[str]] = []
    previous = None
    for row_id, _ in sorted(heads, key=lambda head: (-head[1], head[0])):
        entry_id = row_id.partition("-")[0]
        if not plan or (len(plan[-1]) >= max_rows and entry_id != previous):
            plan.append([])
        plan[-1].append(row_id)
        previous = entry_id
    return plan
