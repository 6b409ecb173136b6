"""Rows, open intents and totals, with times in microseconds.

Migrations stand for themselves: what the program's tables are called today must not change what was done to those of then.
"""

from typing import Final

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_SUMS: Final = (
    "request_count",
    "entry_count",
    "cache_hit_count",
    "input_tokens",
    "output_tokens",
    "cost_nano_usd",
    "saved_cost_nano_usd",
    "energy_microjoules",
    "saved_energy_microjoules",
    "carbon_micrograms",
)


# Ids are looked for in ranges, in the order of bytes.
_TEXT: Final = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, _TEXT, nullable=False) for name in names]


def _number(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "entries",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        *_text("request_id"),
        *_number("attempt", "created_us"),
        *_text("key_id", "provider", "requested_model", "model"),
        *_number("outcome"),
        _flag("streamed"),
        *_number("cache_status", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens"),
        _flag("tokens_estimated"),
        *_number("cost_nano_usd", "cost_basis"),
        *_number("energy_low_microjoules", "energy_microjoules", "energy_high_microjoules", "energy_basis"),
        *_number("saved_cost_nano_usd", "saved_energy_microjoules", "carbon_micrograms"),
        *_text("zone"),
        sa.UniqueConstraint("request_id", "attempt"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "intents",
        sa.Column("request_id", _TEXT, primary_key=True),
        *_text("router_id"),
        *_number("created_us"),
        *_text("key_id", "requested_model", "provider", "model"),
        _flag("streamed"),
        *_number("estimated_input_tokens", "max_output_tokens"),
    )
    op.create_index("intents_by_router", "intents", ["router_id"])
    op.create_table("totals", sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False), *_number(*_SUMS))
    op.execute(f"INSERT INTO totals (id, {', '.join(_SUMS)}) VALUES (1{', 0' * len(_SUMS)})")


def downgrade() -> None:
    if not context.is_offline_mode() and op.get_bind().scalar(sa.text("SELECT count(*) FROM entries")):
        raise ValueError("there are rows in the books: what came before 0001 has no place for them")
    for table in ("totals", "intents", "entries"):
        op.drop_table(table)
