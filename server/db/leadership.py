"""Named leases: of all workers, the one that holds `scheduler` plans."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete, or_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Leadership


async def hold(
    session: AsyncSession, name: str, *, owner: str, now: datetime, lease_s: float
) -> bool:
    """Take or renew the lease; False while someone else holds it."""
    expires_at = now + timedelta(seconds=lease_s)
    taken = await session.execute(
        update(Leadership)
        .where(
            Leadership.name == name,
            or_(Leadership.owner == owner, Leadership.expires_at <= now),
        )
        .values(owner=owner, expires_at=expires_at)
        .execution_options(synchronize_session=False)
    )
    if cast("CursorResult[Any]", taken).rowcount == 1:
        return True
    if await session.get(Leadership, name) is not None:
        return False
    try:
        async with session.begin_nested():
            session.add(Leadership(name=name, owner=owner, expires_at=expires_at))
    except IntegrityError:
        return False  # another worker was first
    return True


async def let_go(session: AsyncSession, name: str, *, owner: str) -> None:
    """Give the lease back, if it is ours, so that another worker plans at once."""
    await session.execute(
        delete(Leadership).where(Leadership.name == name, Leadership.owner == owner)
    )
