"""Statements of the hot path: SQLAlchemy writes their text, once for each kind of store, and is out of the way when they run.

What it does around one execution takes about five times what SQLite does in it, and a commit of the books is a dozen of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

_encode: Final = msgspec.json.Encoder().encode
Reading = Callable[[Any], Any]


class Among(sa.ColumnElement[Any]):
    """Whether a column is one of a list, which is a single parameter: the text is the same for a list of any length."""

    inherit_cache = True

    def __init__(self, column: sa.ColumnElement[str], name: str = "these") -> None:
        self.column = column
        self.listed: sa.BindParameter[Any] = sa.bindparam(name)


@compiles(Among, "sqlite")
def _among_json(element: Among, compiler: Any, **options: Any) -> str:
    column, listed = (compiler.process(each, **options) for each in (element.column, element.listed))
    return f"{column} IN (SELECT value FROM json_each({listed}))"


@compiles(Among, "postgresql")
def _among_array(element: Among, compiler: Any, **options: Any) -> str:
    column, listed = (compiler.process(each, **options) for each in (element.column, element.listed))
    return f"{column} = ANY(CAST({listed} AS text[]))"


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement as one kind of driver takes it."""

    sql: str
    # The names of the parameters in their order, where they have no names in the text.
    order: Sequence[str] | None
    # What stands in the statement itself.
    constants: Mapping[str, Any]
    # Columns that the driver gives in another form, by their places.
    readings: Sequence[tuple[int, Reading]]

    def parameters(self, given: Mapping[str, Any]) -> Any:
        named = {**self.constants, **given} if self.constants else given
        if self.order is None:
            return named
        return [_encode(value).decode() if isinstance(value, list) else value for value in map(named.__getitem__, self.order)]

    def read(self, row: Sequence[Any]) -> Sequence[Any]:
        values = list(row)
        for place, reading in self.readings:
            values[place] = reading(values[place])
        return values


class Statement:
    """One that runs on the driver's own connection, within a transaction of SQLAlchemy's. Raises what SQLAlchemy would."""

    def __init__(self, clause: sa.Executable) -> None:
        self._clause: Any = clause
        self._texts: dict[str, _Text] = {}

    def all(self, connection: sa.Connection, **given: Any) -> Sequence[Sequence[Any]]:
        """The rows that it finds."""
        text = self._text(connection.dialect)
        found: Sequence[Sequence[Any]] = _run(connection, text.sql, text.parameters(given), many=False).fetchall()
        return list(map(text.read, found)) if text.readings else found

    def run(self, connection: sa.Connection, **given: Any) -> None:
        text = self._text(connection.dialect)
        _run(connection, text.sql, text.parameters(given), many=False)

    def run_each(self, connection: sa.Connection, given: Iterable[Mapping[str, Any]]) -> None:
        """Once with each of these."""
        text = self._text(connection.dialect)
        _run(connection, text.sql, list(map(text.parameters, given)), many=True)

    def _text(self, dialect: sa.Dialect) -> _Text:
        text = self._texts.get(dialect.name)
        if text is None:
            text = self._texts[dialect.name] = _text_of(self._clause, dialect)
        return text


class Insertion:
    """An insert of many tuples.

    SQLite's rows go many to a statement: Python gives up its lock for each, and beside a busy event loop waits milliseconds to get it back.
    """

    # Few sizes, so that each statement's text is prepared once.
    _SIZES: Final = (64, 32, 16, 8, 4, 2, 1)

    def __init__(self, table: sa.Table, fields: Sequence[str], dialect: sa.Dialect) -> None:
        compiled = sa.insert(table).inline().compile(dialect=dialect, column_keys=list(fields))
        self._sql = str(compiled)
        self._fields = fields
        self._is_positional = bool(compiled.positional)
        row = f"({', '.join('?' for _ in fields)})"
        self._texts = {size: self._sql + f", {row}" * (size - 1) for size in self._SIZES}

    def run(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        if not self._is_positional:
            if rows:
                _run(connection, self._sql, [dict(zip(self._fields, row, strict=True)) for row in rows], many=True)
            return
        start = 0
        while start < len(rows):
            size = next(size for size in self._SIZES if size <= len(rows) - start)
            _run(connection, self._texts[size], tuple(chain.from_iterable(rows[start : start + size])), many=False)
            start += size


def _text_of(clause: Any, dialect: sa.Dialect) -> _Text:
    compiled = clause.compile(dialect=dialect)
    constants = {name: value for name, value in compiled.params.items() if value is not None}
    columns = clause.selected_columns if isinstance(clause, sa.Select) else ()
    readings = ((place, column.type.dialect_impl(dialect).result_processor(dialect, None)) for place, column in enumerate(columns))
    order = tuple(compiled.positiontup) if compiled.positional else None
    return _Text(str(compiled), order, constants, [(place, reading) for place, reading in readings if reading is not None])


def _run(connection: sa.Connection, sql: str, parameters: Any, many: bool) -> Any:
    dialect = connection.dialect
    driver = connection.connection.dbapi_connection
    assert driver is not None
    try:
        cursor = driver.cursor()
        (cursor.executemany if many else cursor.execute)(sql, parameters)
    except dialect.loaded_dbapi.Error as error:
        is_broken = dialect.is_disconnect(error, driver, None)
        if is_broken:
            connection.invalidate(error)
        raise sa.exc.DBAPIError.instance(
            None, None, error, dialect.loaded_dbapi.Error, connection_invalidated=is_broken, dialect=dialect
        ) from error
    return cursor
