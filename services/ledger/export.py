"""Rows as files: CSV, JSON lines and Parquet, piece by piece.

Names are those of Entry's fields, numbers stay whole numbers, times are RFC 3339 to the nanosecond (Parquet has a type for them), and
enumerations their names. The place of a row in its chain comes along, so that what was exported can be held against the chain.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from joulegate.chat.v1.receipt_pb2 import CacheStatus, CostBasis, EnergyBasis
from joulegate.ledger.v1.entry_pb2 import CarbonSignal, EnergyBoundary, Outcome
from services.ledger.chain import Linked
from services.ledger.records import Row, carbon_ends

_ENUMS: Final[Mapping[str, Any]] = {
    "outcome": Outcome,
    "cache_status": CacheStatus,
    "cost_basis": CostBasis,
    "energy_basis": EnergyBasis,
    "energy_boundary": EnergyBoundary,
    "carbon_signal": CarbonSignal,
}
_TIME: Final = "create_time"
_PLACE: Final = ("carbon_low_micrograms", "carbon_high_micrograms", "chain", "link", "hash")
NAMES: Final = tuple(_TIME if name == "created_ns" else name for name in Row._fields) + _PLACE
# What a spreadsheet would take for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_NS: Final = 10**9


class Placed(NamedTuple):
    """A row with its chain. None: it has no place in one."""

    chain: int | None
    linked: Linked


class Exporter(Protocol):
    """Writes one file. Pieces are to be put after each other."""

    @property
    def content_type(self) -> str: ...

    def begin(self) -> bytes: ...

    def rows(self, rows: Sequence[Placed]) -> bytes: ...

    def end(self) -> bytes: ...


class _Csv:
    content_type = "text/csv; charset=utf-8"

    def begin(self) -> bytes:
        return self._written([NAMES])

    def rows(self, rows: Sequence[Placed]) -> bytes:
        return self._written([[_harmless(value) for value in _values(row)] for row in rows])

    def end(self) -> bytes:
        return b""

    def _written(self, rows: Sequence[Sequence[Any]]) -> bytes:
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        return text.getvalue().encode()


class _JsonLines:
    content_type = "application/jsonl"

    def begin(self) -> bytes:
        return b""

    def rows(self, rows: Sequence[Placed]) -> bytes:
        return b"".join(msgspec.json.encode(dict(zip(NAMES, _values(row), strict=True))) + b"\n" for row in rows)

    def end(self) -> bytes:
        return b""


class _Parquet:
    """A row group for each piece."""

    content_type = "application/vnd.apache.parquet"

    def __init__(self) -> None:
        # Loading it takes a quarter of a second, which other formats do not need.
        import pyarrow as pa
        from pyarrow import parquet

        types: dict[Any, Any] = {str: pa.string(), int: pa.int64(), int | None: pa.int64(), bool: pa.bool_()}
        kinds = {name: types[kind] for name, kind in Row.__annotations__.items()} | {name: pa.string() for name in _ENUMS}
        kinds[_TIME] = pa.timestamp("ns", tz="UTC")
        kinds |= {"hash": pa.string()}
        self._pa = pa
        self._schema = pa.schema([(name, kinds.get(name, pa.int64())) for name in NAMES])
        self._out = io.BytesIO()
        self._sink = pa.PythonFile(_Counted(self._out), mode="w")
        self._writer = parquet.ParquetWriter(self._sink, self._schema, compression="zstd")

    def begin(self) -> bytes:
        return self._taken()

    def rows(self, rows: Sequence[Placed]) -> bytes:
        if rows:
            columns = zip(*(_values(row, lambda nanoseconds: nanoseconds) for row in rows), strict=True)
            arrays = [self._pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
            self._writer.write_table(self._pa.Table.from_arrays(arrays, schema=self._schema))
        return self._taken()

    def end(self) -> bytes:
        self._writer.close()
        return self._taken()

    def _taken(self) -> bytes:
        taken = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return taken


class _Counted(io.RawIOBase):
    """A file that is written to its end only, and whose beginning may be gone."""

    def __init__(self, out: io.BytesIO) -> None:
        self._out = out
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written += len(data)
        return self._out.write(data)

    def tell(self) -> int:
        return self._written


# By name, also the end of a file's name.
FORMATS: Final[Mapping[str, Callable[[], Exporter]]] = {"csv": _Csv, "jsonl": _JsonLines, "parquet": _Parquet}


def _values(placed: Placed, time_of: Callable[[int], Any] | None = None) -> list[Any]:
    """The values of a row in the order of the names."""
    chain, (row, link, digest) = placed
    values = [*row, *carbon_ends(row), chain, link if chain is not None else None, digest.hex() if chain is not None else None]
    for name, enum in _ENUMS.items():
        values[_PLACES[name]] = _name(enum, values[_PLACES[name]])
    values[_PLACES[_TIME]] = (time_of or rfc_3339)(row.created_ns)
    return values


_PLACES: Final = {name: place for place, name in enumerate(NAMES)}


@cache
def _name(enum: Any, value: int) -> str:
    """The name of a value; its number when a router of a later version has sent it."""
    return str(enum.Name(value)) if value in enum.values() else str(value)


def rfc_3339(nanoseconds: int) -> str:
    """A time in UTC, with nine decimals."""
    seconds, rest = divmod(nanoseconds, _NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


def _harmless(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula; an apostrophe before it says so. Numbers are never such."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return str(value).lower() if isinstance(value, bool) else value
