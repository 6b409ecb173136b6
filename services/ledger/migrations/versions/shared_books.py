"""Several ledgers on the same books: totals in several rows, and who has which router."""

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

_ROWS: Final = 16
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


def upgrade() -> None:
    op.create_table(
        "presence",
        sa.Column("router_id", sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql"), primary_key=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
    )
    for number in range(2, _ROWS + 1):
        op.execute(f"INSERT INTO totals (id, {', '.join(_SUMS)}) VALUES ({number}{', 0' * len(_SUMS)})")


def downgrade() -> None:
    sums = ", ".join(f"{name} = (SELECT CAST(SUM({name}) AS BIGINT) FROM totals)" for name in _SUMS)
    op.execute(f"UPDATE totals SET {sums} WHERE id = 1")
    op.execute("DELETE FROM totals WHERE id > 1")
    op.drop_table("presence")
