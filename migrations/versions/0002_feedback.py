"""Feedback to answers, and where a group's label is from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "feedback",
        sa.Column("query_id", sa.String(length=64), nullable=False),
        sa.Column("choice", sa.Integer(), nullable=False),
        sa.Column(
            "tenant_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("adapter_version", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("correct_answer", sa.Text(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["query_id"], ["queries.id"], name=op.f("fk_feedback_query_id_queries")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_feedback_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("query_id", "choice", name=op.f("pk_feedback")),
    )
    with op.batch_alter_table("feedback", schema=None) as batch_op:
        batch_op.create_index(
            "ix_feedback_tenant_id_updated_at", ["tenant_id", "updated_at"], unique=False
        )
        batch_op.create_index(
            "ix_feedback_tenant_id_adapter_version", ["tenant_id", "adapter_version"], unique=False
        )

    with op.batch_alter_table("groups", schema=None) as batch_op:
        batch_op.add_column(sa.Column("label_source", sa.String(length=16), nullable=True))
    groups = sa.table("groups", sa.column("label"), sa.column("label_source", sa.String()))
    voted = groups.update().where(groups.c.label.is_not(None)).values(label_source="vote")
    op.execute(voted)  # before this revision, every label was


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("groups", schema=None) as batch_op:
        batch_op.drop_column("label_source")

    with op.batch_alter_table("feedback", schema=None) as batch_op:
        batch_op.drop_index("ix_feedback_tenant_id_adapter_version")
        batch_op.drop_index("ix_feedback_tenant_id_updated_at")

    op.drop_table("feedback")
