"""Rows are links of chains. Those that are there get their hashes when a ledger starts, for that is not SQL's work."""

from typing import Final

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"

_TEXT: Final = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
_NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
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


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, _TEXT, nullable=False) for name in names]


def _number(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _place() -> tuple[sa.Column[int], sa.Column[int], sa.Column[bytes]]:
    return sa.Column("chain", sa.Integer()), sa.Column("link", sa.BigInteger()), sa.Column("hash", sa.LargeBinary())


def upgrade() -> None:
    for column in _place():
        op.add_column("entries", column)
    op.create_index("entries_by_link", "entries", ["chain", "link"], unique=True)
    op.create_table(
        "superseded",
        sa.Column("sequence", _NUMBER, primary_key=True, autoincrement=False),
        *_text("request_id"),
        *_number("attempt", "created_ns"),
        *_text("key_id", "provider", "requested_model", "model"),
        *_number("outcome"),
        _flag("streamed"),
        *_number("cache_status", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens"),
        _flag("tokens_estimated"),
        *_number("cost_nano_usd", "cost_basis"),
        *_number("energy_low_microjoules", "energy_microjoules", "energy_high_microjoules", "energy_basis"),
        *_number("saved_cost_nano_usd", "saved_energy_microjoules", "carbon_micrograms"),
        *_text("zone"),
        *_place(),
    )
    op.create_index("superseded_by_link", "superseded", ["chain", "link"], unique=True)
    op.add_column("totals", sa.Column("links", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("totals", sa.Column("head", sa.LargeBinary()))
    op.create_table(
        "checkpoints",
        sa.Column("chain", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("link", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        *_number("through_link"),
        *_text("through_hash"),
        *_number("created_ns", "before_ns", *_SUMS),
    )


def downgrade() -> None:
    if not context.is_offline_mode() and op.get_bind().scalar(sa.text("SELECT count(*) FROM checkpoints")):
        raise ValueError("old rows were deleted: what came before 0007 has no place for what stands for them")
    op.drop_table("checkpoints")
    op.drop_column("totals", "head")
    op.drop_column("totals", "links")
    op.drop_table("superseded")
    op.drop_index("entries_by_link", "entries")
    for column in _place()[::-1]:
        op.drop_column("entries", column.name)
