"""Versions of the routing policy."""

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"

_TEXT: Final = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("version", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("document", _TEXT, nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("comment", _TEXT, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("policies")
