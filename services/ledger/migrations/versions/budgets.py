"""Budgets with their balances, what requests and leases hold of them, and how fast callers were."""

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"

_TEXT: Final = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
_HOLDS: Final = {
    "call_count": "1",
    "answer_count": "1",
    "held_nano_usd": "0",
    "held_tokens": "0",
    "held_microjoules": "0",
    "held_micrograms": "0",
    "rate_tick": "0",
    "expires_ns": "0",
}


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, _TEXT, nullable=False) for name in names]


def _number(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def upgrade() -> None:
    for name, value in _HOLDS.items():
        op.add_column("intents", sa.Column(name, sa.BigInteger(), nullable=False, server_default=value))
    op.create_table(
        "budgets",
        sa.Column("budget_id", _TEXT, primary_key=True),
        *_text("name"),
        *_number("scope"),
        *_text("scope_id"),
        *_number("measure", "window_kind", "rolling_s", "bound", "on_exhausted"),
        *_text("downgrade_model"),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        *_number("created_ns", "counted_from_ns"),
    )
    op.create_index("budgets_by_scope", "budgets", ["scope", "scope_id"])
    op.create_table(
        "budget_balances",
        sa.Column("budget_id", _TEXT, primary_key=True),
        sa.Column("bucket_ns", sa.BigInteger(), primary_key=True, autoincrement=False),
        *_number("spent", "held", "alerted"),
    )
    op.create_table("budget_revision", sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False), *_number("revision"))
    op.execute("INSERT INTO budget_revision (id, revision) VALUES (1, 1)")
    op.create_table(
        "leases",
        sa.Column("lease_id", _TEXT, primary_key=True),
        *_text("router_id", "key_id"),
        *_number("created_ns", "nano_usd", "tokens", "microjoules", "micrograms", "requests", "rate_tokens"),
    )
    op.create_index("leases_by_key", "leases", ["key_id"])
    op.create_table(
        "rate_states",
        sa.Column("key_id", _TEXT, primary_key=True),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        *_number("updated_ns"),
    )


def downgrade() -> None:
    op.drop_table("rate_states")
    op.drop_table("leases")
    op.drop_table("budget_revision")
    op.drop_table("budget_balances")
    op.drop_table("budgets")
    for name in reversed(_HOLDS):
        op.drop_column("intents", name)
