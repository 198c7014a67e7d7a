"""The trace that a query belongs to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("queries", sa.Column("trace_id", sa.String(32), nullable=True))
    op.add_column("queries", sa.Column("span_id", sa.String(16), nullable=True))


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("queries", schema=None) as batch_op:
        batch_op.drop_column("span_id")
        batch_op.drop_column("trace_id")
