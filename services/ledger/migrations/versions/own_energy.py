"""Rows tell what the gateway itself took."""

import sqlalchemy as sa
from alembic import context, op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    for table in ("entries", "superseded"):
        op.add_column(table, sa.Column("gateway_energy_microjoules", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    if not context.is_offline_mode() and op.get_bind().scalar(sa.text("SELECT count(*) FROM checkpoints")):
        raise ValueError("old rows were deleted, and the hash that stands for them holds only for rows with the columns of 0010")
    # Without these values no hash of a row is true: the next start makes new ones, as for rows of before 0007.
    op.execute("UPDATE entries SET chain = NULL, link = NULL, hash = NULL")
    op.execute("DELETE FROM superseded")
    op.execute("UPDATE totals SET links = 0, head = NULL")
    for table in ("superseded", "entries"):
        op.drop_column(table, "gateway_energy_microjoules")
