"""Alembic's entry: runs inside a connection that the caller opened (`server.db.migrate`)."""

from __future__ import annotations

from alembic import context

from server.db.models import Base


def run() -> None:
    """Run the migrations on the given connection; ALTERs go through a copied table on SQLite."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
