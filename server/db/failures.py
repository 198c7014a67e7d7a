"""What a database that is away raises, for those who must not know SQLAlchemy."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from server.errors import ConfigurationError

__all__ = ["SQLAlchemyError", "refused_at_start"]


@contextmanager
def refused_at_start(url: str) -> Generator[None]:
    """Around the first use of a database: what it raises becomes one clear line.

    Raises:
        ConfigurationError: the URL makes no sense, its driver is missing, or nothing answers.
    """
    try:
        yield
    except (SQLAlchemyError, OSError, ImportError, ValueError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise ConfigurationError(
            f"{_shown(url)} cannot be used: {str(reason).splitlines()[0]}. "
            "Check TTRL_DATABASE_URL, and that the database runs."
        ) from error


def _shown(url: str) -> str:
    """The database without its password; a URL that cannot be read may hold one anywhere."""
    try:
        return f"The database {make_url(url).render_as_string()}"
    except (SQLAlchemyError, ValueError):
        return "The database"
