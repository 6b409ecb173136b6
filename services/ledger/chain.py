"""The chain of the books: each link's hash covers what is in it and the hash before it, so that nothing changes, goes or moves unseen.

    hash = SHA-256(the hash before, then as JSON: [kind, value, value, …])

The values of a row are those of its columns in their order, without those at the end that are what a new column of an old row is. So a
column that is added later, at the end, leaves all hashes as they are. The chain begins with the hash of its own number. Ledgers that share
the books write different chains, as they do with totals, so that none waits for another's commit.

A row that was booked as lost and gave way to what really happened stays a link, beside the books. Rows that were too old and went leave a
checkpoint, itself a link: up to where they went, the hash there, and what they came to.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from services.ledger.booking import Totals
from services.ledger.records import Row

_NEW: Final[dict[Any, Any]] = {str: "", int: 0, bool: False, int | None: None}
_ROW_ENDS: Final = tuple(_NEW[kind] for kind in Row.__annotations__.values())
_encode: Final = msgspec.json.Encoder().encode
_ROW: Final = "entry"
_CHECKPOINT: Final = "checkpoint"


class Head(NamedTuple):
    """The end of a chain: how many links it has, and the hash of the last."""

    links: int
    hash: bytes


class Checkpoint(NamedTuple):
    """What stands for the links up to `through_link`, which are gone."""

    through_link: int
    # In hexadecimal.
    through_hash: str
    created_ns: int
    # All rows that went were older.
    before_ns: int
    # Over all rows that went, also those of earlier checkpoints.
    totals: Totals


class Linked(NamedTuple):
    """A row at its place in a chain."""

    row: Row
    link: int
    hash: bytes


class Link(NamedTuple):
    """A link as it is stored."""

    link: int
    hash: bytes
    content: Row | Checkpoint


def origin(chain: int) -> Head:
    """A chain without links."""
    return Head(0, hashlib.sha256(b"joulegate chain %d" % chain).digest())


def hash_of(before: bytes, content: Row | Checkpoint) -> bytes:
    """The hash of what is linked to the hash before it."""
    return hashlib.sha256(before + _encode(_row_values(content) if isinstance(content, Row) else _checkpoint_values(content))).digest()


def extend(head: Head, rows: Iterable[Row]) -> tuple[list[Linked], Head]:
    """Links rows to the end of a chain, and gives its new end."""
    links, last = head
    linked = []
    for row in rows:
        links += 1
        last = hash_of(last, row)
        linked.append(Linked(row, links, last))
    return linked, Head(links, last)


def _row_values(row: Row) -> Sequence[Any]:
    values = list(row)
    while values[-1] == _ROW_ENDS[len(values) - 1]:
        values.pop()
    values.insert(0, _ROW)
    return values


def _checkpoint_values(checkpoint: Checkpoint) -> Sequence[Any]:
    return [_CHECKPOINT, *checkpoint[:-1], *checkpoint.totals]
