"""What a database that is away raises, for those who must not know SQLAlchemy."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

__all__ = ["SQLAlchemyError"]
