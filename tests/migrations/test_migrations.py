"""The migrations build the schema that the program expects, and take it down again."""

from __future__ import annotations

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from server.db.engine import Database
from server.db.migrate import alembic_config, check, upgrade
from server.db.models import Base
from server.errors import DatabaseBehind


async def test_models_and_migrations_agree(database: Database) -> None:
    def difference(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(difference) == []


async def test_upgrade_twice_is_the_same_as_once(database: Database) -> None:
    await upgrade(database)
    await check(database)


async def test_downgrade_leaves_nothing(database: Database) -> None:
    def downgrade(connection: Connection) -> list[str]:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        return inspect(connection).get_table_names()

    async with database.engine.begin() as connection:
        assert await connection.run_sync(downgrade) == ["alembic_version"]


async def test_an_empty_database_is_refused(database_url: str) -> None:
    database = Database(database_url)
    with pytest.raises(DatabaseBehind, match="ttrl-server migrate"):
        await check(database)
    await database.close()


async def test_an_older_revision_is_refused(database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(DatabaseBehind, match="0000"):
        await check(database)


async def test_labels_from_before_there_was_feedback_were_voted(database_url: str) -> None:
    def to_the_first_revision(connection: Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(to_the_first_revision)
        for statement in OLD_ROWS:
            await connection.execute(text(statement))
    await upgrade(database)
    async with database.engine.connect() as connection:
        rows = await connection.execute(text("SELECT label, label_source FROM groups ORDER BY id"))
        assert [tuple(row) for row in rows] == [("4", "vote"), (None, None)]
    await database.close()


OLD_ROWS = (
    "INSERT INTO tenants (id, name, settings, live_version, created_at)"
    " VALUES (1, 'adder', '{}', 0, '2026-01-01 00:00:00')",
    'INSERT INTO cycles (id, tenant_id, "trigger", status, settings, seed, steps_planned,'
    " steps_done, num_rollouts, cancel_requested, attempts, fence, created_at)"
    " VALUES (1, 1, 'manual', 'rejected', '{}', 1, 1, 1, 0, false, 1, 1, '2026-01-01 00:00:00')",
    "INSERT INTO groups (id, cycle_id, tenant_id, step, query_id, fingerprint, label,"
    " num_samples, num_answers, trained)"
    " VALUES (1, 1, 1, 1, 'q', 'f', '4', 0, 0, false), (2, 1, 1, 1, 'r', 'g', NULL, 0, 0, false)",
)
