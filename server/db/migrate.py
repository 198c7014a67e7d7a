"""Schema migrations: apply them, or say clearly that somebody should."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from server.db.engine import Database
from server.errors import DatabaseBehind

SCRIPTS = Path(__file__).resolve().parents[2] / "migrations"


def alembic_config() -> Config:
    """Alembic's configuration, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


async def upgrade(database: Database) -> None:
    """Bring the schema to this program's revision, in one transaction."""
    writing = database.engine.execution_options(sqlite_write=True)
    async with writing.begin() as connection:
        await connection.run_sync(_upgrade)


async def check(database: Database) -> None:
    """Refuse to work on another revision than this program's.

    Raises:
        DatabaseBehind: the schema is older, newer, or not there.
    """
    async with database.engine.connect() as connection:
        current = await connection.run_sync(_current)
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if current != head:
        raise DatabaseBehind(
            f"The database is at revision {current or 'none'}, this program needs {head}. "
            "Run `ttrl-server migrate`."
        )
