"""Waiting in tests: for what is to happen, never for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_S = 20.0


async def until(condition: Callable[[], bool]) -> None:
    """Raises TimeoutError when it is not so after a long while."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (nobody announces what is waited for)
            await asyncio.sleep(0)
