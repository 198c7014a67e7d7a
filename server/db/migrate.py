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


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config())


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


async def upgrade(database: Database) -> None:
    """Bring the schema to this program's revision, in one transaction.

    Raises:
        DatabaseBehind: the schema is of a newer program.
    """
    async with database.engine.connect() as connection:
        _refuse_unknown(await connection.run_sync(_current))
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
    _refuse_unknown(current)
    head = _scripts().get_current_head()
    if current != head:
        raise DatabaseBehind(
            f"The database is at revision {current or 'none'}, this program needs {head}. "
            "Run `ttrl-server migrate`."
        )


def _refuse_unknown(current: str | None) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    if current is not None and current not in known:
        raise DatabaseBehind(
            f"The database is at revision {current}, which this program does not know: "
            "use the program that it was migrated with, or a newer one."
        )
