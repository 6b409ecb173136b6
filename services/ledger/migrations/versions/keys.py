"""API keys, what addresses are hashed with, and an index by which what was booked on a key is found."""

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

_TEXT: Final = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, _TEXT, nullable=False) for name in names]


def _number(*names: str, nullable: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=nullable) for name in names]


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("key_id", _TEXT, nullable=False, unique=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False, unique=True),
        *_number("revision", "environment", "created_ns"),
        *_number("revoked_ns", nullable=True),
        *_text("name", "team", "organisation", "tier", "allowed_models"),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        *_number("expires_ns", "monthly_token_budget", "monthly_cost_budget_nano_usd", nullable=True),
        *_number("requests_per_minute", "tokens_per_minute", nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_index("api_keys_by_revision", "api_keys", ["revision"])
    op.create_table("salts", sa.Column("name", _TEXT, primary_key=True), sa.Column("salt", sa.LargeBinary(), nullable=False))
    op.create_index("entries_by_key", "entries", ["key_id", "created_ns"])


def downgrade() -> None:
    op.drop_index("entries_by_key", "entries")
    op.drop_table("salts")
    op.drop_table("api_keys")
