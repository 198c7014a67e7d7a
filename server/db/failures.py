"""What a database that is away raises, for those who must not know SQLAlchemy."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from server.errors import ConfigurationError, DatabaseAway

# Of SQLite's errors and of PostgreSQL's error classes, those that pass without a change of the
# settings: locked, full; connection lost, too many connections, starting up or shutting down.
PASSING_SQLITE: Final = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR")
PASSING_POSTGRES: Final = ("08", "53", "57P", "58")
UNDONE_POSTGRES: Final = "40"  # a deadlock among them: the same transaction may go well next time

DATABASE_ERRORS: Final = (DBAPIError, PoolTimeout, ConnectionError, TimeoutError)
"""What a database that is away raises; a mistake of ours may be a `DBAPIError` too."""

__all__ = ["DATABASE_ERRORS", "SQLAlchemyError", "is_away", "refused_at_start"]


def is_away(error: Exception) -> bool:
    """Whether the database was away, or not ready for this, and the same may be asked again."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, (PoolTimeout, OSError))
    if error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError)):
        return True
    # Of PostgreSQL's errors most are a plain `DBAPIError`: starting, shutting down, too many
    # connections, just as some mistakes of ours. Its codes tell them apart.
    code = str(getattr(error.orig, "sqlstate", None) or "")
    return code.startswith((*PASSING_POSTGRES, UNDONE_POSTGRES))


@contextmanager
def refused_at_start(url: str) -> Generator[None]:
    """Around the first use of a database: what it raises becomes one clear line.

    Raises:
        DatabaseAway: nothing answers, or it is locked, full, or just starting.
        ConfigurationError: the URL makes no sense, its driver is missing, or it is refused.
    """
    try:
        yield
    except (SQLAlchemyError, OSError, ImportError, ValueError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        kind = DatabaseAway if _may_pass(reason) else ConfigurationError
        said = (str(reason) or type(reason).__name__).splitlines()[0]
        raise kind(
            f"{_shown(url)} cannot be used: {said}. "
            "Check TTRL_DATABASE_URL, and that the database runs."
        ) from error


def _may_pass(reason: BaseException | None) -> bool:
    """Whether the database may be there later, with the same settings."""
    cause: BaseException | None = reason
    while cause is not None:  # drivers' errors are wrapped, and name the first one as their cause
        code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
        if code is not None:
            return str(code).startswith((*PASSING_SQLITE, *PASSING_POSTGRES))
        if isinstance(cause, OSError):  # refused, timed out, no such socket or host
            return True
        cause = cause.__cause__
    return False


def _shown(url: str) -> str:
    """The database without its password; a URL that cannot be read may hold one anywhere."""
    try:
        return f"The database {make_url(url).render_as_string()}"
    except (SQLAlchemyError, ValueError):
        return "The database"
