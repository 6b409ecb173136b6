"""An index by which the rows of a time are found."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_index("entries_by_time", "entries", ["created_ns"])


def downgrade() -> None:
    op.drop_index("entries_by_time", "entries")
