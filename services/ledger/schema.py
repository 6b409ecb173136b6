"""The tables of the books, as the newest migration leaves them."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from services.ledger.booking import Totals
from services.ledger.records import OpenIntent, Row

metadata = sa.MetaData()
# SQLite counts rows only in a column that is called INTEGER; it is 64 bits wide there.
_sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


# In the order of bytes, as SQLite has it, whatever a server's language is: ids are looked for in ranges.
_text = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def _column(name: str, kind: type) -> sa.Column[Any]:
    types: dict[type, sa.types.TypeEngine[Any]] = {str: _text, int: sa.BigInteger(), bool: sa.Boolean()}
    return sa.Column(name, types[kind], nullable=False)


# A number that was given out is never given out again, or pages would shift when a LOST row is replaced.
entries = sa.Table(
    "entries",
    metadata,
    sa.Column("sequence", _sequence, primary_key=True, autoincrement=True),
    *(_column(name, kind) for name, kind in Row.__annotations__.items()),
    sa.UniqueConstraint("request_id", "attempt"),
    sqlite_autoincrement=True,
)
intents = sa.Table(
    "intents",
    metadata,
    sa.Column("request_id", _text, primary_key=True),
    *(_column(name, kind) for name, kind in OpenIntent.__annotations__.items() if name != "request_id"),
    sa.Index("intents_by_router", "router_id"),
)
# The totals are the sum of these rows: ledgers that share the books add to different ones, so that none waits for another's commit.
totals = sa.Table(
    "totals",
    metadata,
    sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
    *(_column(name, kind) for name, kind in Totals.__annotations__.items()),
)
# Routers that some ledger has a stream of, and how long that is sure to be true, by the database's clock.
presence = sa.Table(
    "presence",
    metadata,
    sa.Column("router_id", _text, primary_key=True),
    sa.Column("until", sa.DateTime(timezone=True), nullable=False),
)
