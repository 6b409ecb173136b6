"""The tables of the books, as the newest migration leaves them."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from services.ledger.api_key import KeyTerms
from services.ledger.booking import Totals
from services.ledger.budgets import Balance, Budget
from services.ledger.chain import Checkpoint
from services.ledger.leases import Lease
from services.ledger.records import OpenIntent, Row

metadata = sa.MetaData()
# SQLite counts rows only in a column that is called INTEGER; it is 64 bits wide there.
_sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


# In the order of bytes, as SQLite has it, whatever a server's language is: ids are looked for in ranges.
_text = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


# What a row of before a column has in it.
_BEFORE: Final[dict[Any, str]] = {str: "", int: "0"}


def _column(name: str, kind: Any, default: int | None = None) -> sa.Column[Any]:
    # A tuple of texts is kept as JSON.
    types: dict[Any, sa.types.TypeEngine[Any]] = {str: _text, tuple[str, ...]: _text, int: sa.BigInteger(), bool: sa.Boolean()}
    if kind == int | None:
        return sa.Column(name, sa.BigInteger())
    return sa.Column(name, types[kind], nullable=False, server_default=None if default is None else str(default))


def _row_columns() -> list[sa.Column[Any]]:
    """The columns of a row and of its place in a chain. Without a place: a row of an earlier program, until the ledger starts."""
    row = [_column(name, kind) for name, kind in Row.__annotations__.items()]
    for column in row:
        if column.name in Row._field_defaults and not column.nullable:
            column.server_default = sa.DefaultClause(_BEFORE[Row.__annotations__[column.name]])
    return [*row, sa.Column("chain", sa.Integer()), sa.Column("link", sa.BigInteger()), sa.Column("hash", sa.LargeBinary())]


# A number that was given out is never given out again, or pages would shift when a LOST row is replaced.
entries = sa.Table(
    "entries",
    metadata,
    sa.Column("sequence", _sequence, primary_key=True, autoincrement=True),
    *_row_columns(),
    sa.UniqueConstraint("request_id", "attempt"),
    sa.Index("entries_by_link", "chain", "link", unique=True),
    # What a key was used for, and when last.
    sa.Index("entries_by_key", "key_id", "created_ns"),
    # What reports add up.
    sa.Index("entries_by_time", "created_ns"),
    sqlite_autoincrement=True,
)
# LOST rows that gave way to what really happened, with the numbers that they had in the books.
superseded = sa.Table(
    "superseded",
    metadata,
    sa.Column("sequence", _sequence, primary_key=True, autoincrement=False),
    *_row_columns(),
    sa.Index("superseded_by_link", "chain", "link", unique=True),
)
intents = sa.Table(
    "intents",
    metadata,
    sa.Column("request_id", _text, primary_key=True),
    *(
        _column(name, kind, OpenIntent._field_defaults.get(name))
        for name, kind in OpenIntent.__annotations__.items()
        if name != "request_id"
    ),
    sa.Index("intents_by_router", "router_id"),
)
# The totals are the sum of these rows: ledgers that share the books add to different ones, so that none waits for another's commit.
totals = sa.Table(
    "totals",
    metadata,
    sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
    *(_column(name, kind) for name, kind in Totals.__annotations__.items()),
    # The end of the chain that has the same number. No hash: it has no links.
    sa.Column("links", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("head", sa.LargeBinary()),
)
# What stands for rows that were deleted for their age; links of their chains themselves.
checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("chain", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("link", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("hash", sa.LargeBinary(), nullable=False),
    *(_column(name, kind) for name, kind in Checkpoint.__annotations__.items() if name != "totals"),
    *(_column(name, kind) for name, kind in Totals.__annotations__.items()),
)
# Routers that some ledger has a stream of, and how long that is sure to be true, by the database's clock.
presence = sa.Table(
    "presence",
    metadata,
    sa.Column("router_id", _text, primary_key=True),
    sa.Column("until", sa.DateTime(timezone=True), nullable=False),
)
# `revision` counts the changes of all keys: ledgers that share the books see by it what another has changed.
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("sequence", _sequence, primary_key=True, autoincrement=True),
    sa.Column("key_id", _text, nullable=False, unique=True),
    sa.Column("digest", sa.LargeBinary(), nullable=False, unique=True),
    _column("revision", int),
    _column("environment", int),
    _column("created_ns", int),
    _column("revoked_ns", int | None),
    *(_column(name, kind) for name, kind in KeyTerms.__annotations__.items()),
    sa.Index("api_keys_by_revision", "revision"),
    sqlite_autoincrement=True,
)
# What figures were made with, by the version that rows name.
factor_sets = sa.Table(
    "factor_sets",
    metadata,
    sa.Column("version", _text, primary_key=True),
    _column("first_ns", int),
    _column("document", str),
)
# Random numbers that all ledgers of these books have to agree on.
salts = sa.Table(
    "salts",
    metadata,
    sa.Column("name", _text, primary_key=True),
    sa.Column("salt", sa.LargeBinary(), nullable=False),
)
# Versions of the routing policy, as routers wrote them; none is ever changed.
policies = sa.Table(
    "policies",
    metadata,
    sa.Column("version", sa.BigInteger(), primary_key=True, autoincrement=False),
    _column("document", str),
    _column("created_ns", int),
    _column("comment", str),
)
# Those of keys' own fields among them.
budgets = sa.Table(
    "budgets",
    metadata,
    sa.Column("budget_id", _text, primary_key=True),
    *(_column(name, kind) for name, kind in Budget.__annotations__.items() if name != "budget_id"),
    sa.Index("budgets_by_scope", "scope", "scope_id"),
)
# Sums over rows, and over open intents and leases, of a budget's scope: as of the same commit, always.
budget_balances = sa.Table(
    "budget_balances",
    metadata,
    sa.Column("budget_id", _text, primary_key=True),
    sa.Column("bucket_ns", sa.BigInteger(), primary_key=True, autoincrement=False),
    *(_column(name, kind) for name, kind in Balance.__annotations__.items()),
)
# Counts the changes of budgets and of what keys say of them: writers learn by it that what they remember of both is over.
budget_revision = sa.Table(
    "budget_revision",
    metadata,
    sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
    _column("revision", int),
)
leases = sa.Table(
    "leases",
    metadata,
    sa.Column("lease_id", _text, primary_key=True),
    *(_column(name, kind) for name, kind in Lease.__annotations__.items() if name != "lease_id"),
    sa.Index("leases_by_key", "key_id"),
)
# How fast callers were, where several ledgers have to know.
rate_states = sa.Table(
    "rate_states",
    metadata,
    sa.Column("key_id", _text, primary_key=True),
    sa.Column("state", sa.LargeBinary(), nullable=False),
    _column("updated_ns", int),
)
