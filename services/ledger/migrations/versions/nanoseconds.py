"""Times in nanoseconds: with its id, a request's time says which request a record is of.

Going down cuts times to microseconds. A record of before that is sent again afterwards counts as one of another request.
"""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for table in ("entries", "intents"):
        op.execute(f"ALTER TABLE {table} RENAME COLUMN created_us TO created_ns")
        op.execute(f"UPDATE {table} SET created_ns = created_ns * 1000")


def downgrade() -> None:
    for table in ("entries", "intents"):
        op.execute(f"UPDATE {table} SET created_ns = created_ns / 1000")
        op.execute(f"ALTER TABLE {table} RENAME COLUMN created_ns TO created_us")
