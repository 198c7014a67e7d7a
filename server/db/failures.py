"""What a database that is away raises, for those who must not know SQLAlchemy."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from server.errors import ConfigurationError, DatabaseAway

# Of SQLite's errors and of PostgreSQL's error classes, those that pass without a change of the
# settings: locked, full; connection lost, too many connections, starting up or shutting down.
PASSING_SQLITE: Final = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR")
PASSING_POSTGRES: Final = ("08", "53", "57P", "58")

__all__ = ["SQLAlchemyError", "refused_at_start"]


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
