"""Rows tell more of what was counted, of both costs, and of what their figures rest on."""

from typing import Final

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"

_TEXT: Final = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, _TEXT, nullable=False, server_default="")


def _columns() -> list[sa.Column[int] | sa.Column[str]]:
    return [
        _number("cache_write_tokens"),
        _number("cache_write_1h_tokens"),
        _number("input_audio_tokens"),
        _number("output_audio_tokens"),
        _text("served_model"),
        _number("list_cost_nano_usd"),
        sa.Column("reported_cost_nano_usd", sa.BigInteger()),
        _number("energy_boundary"),
        _number("estimated_energy_microjoules"),
        _number("carbon_signal"),
        _text("factors_version"),
        _number("saved_carbon_micrograms"),
    ]


def upgrade() -> None:
    for table in ("entries", "superseded"):
        for column in _columns():
            op.add_column(table, column)
    op.create_table(
        "factor_sets",
        sa.Column("version", _TEXT, primary_key=True),
        sa.Column("first_ns", sa.BigInteger(), nullable=False),
        sa.Column("document", _TEXT, nullable=False),
    )


def downgrade() -> None:
    if not context.is_offline_mode() and op.get_bind().scalar(sa.text("SELECT count(*) FROM checkpoints")):
        raise ValueError("old rows were deleted, and the hash that stands for them holds only for rows with the columns of 0009")
    # Without these values no hash of a row is true: the next start makes new ones, as for rows of before 0007.
    op.execute("UPDATE entries SET chain = NULL, link = NULL, hash = NULL")
    op.execute("DELETE FROM superseded")
    op.execute("UPDATE totals SET links = 0, head = NULL")
    op.drop_table("factor_sets")
    for table in ("superseded", "entries"):
        for column in _columns()[::-1]:
            op.drop_column(table, column.name)
