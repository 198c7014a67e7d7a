"""The clients of the admin API. Operations are described in `_calls`, and sent by `_sending`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from typing import Final

import httpx

from ttrl_client import _calls
from ttrl_client._calls import Retries
from ttrl_client._errors import WaitTimeoutError
from ttrl_client._sending import (
    DEFAULT_URL,
    URL_VARIABLE,
    AsyncSender,
    Sender,
    async_method,
    connection,
    sync_method,
)
from ttrl_client.types import Cycle

__all__ = ["ADMIN_KEY_VARIABLE", "DEFAULT_URL", "URL_VARIABLE", "AsyncTTRLClient", "TTRLClient"]

DEFAULT_TIMEOUT_S: Final = 60.0  # a promotion loads the version on every engine before it answers
ADMIN_KEY_VARIABLE: Final = "TTRL_ADMIN_KEY"


class TTRLClient(Sender):
    """The admin API, blocking. Close it, or use it in a `with` block. Thread-safe.

    Every method raises a `TTRLError` of the tree in `_errors`, and `ValueError` for an argument
    that the server would refuse anyway.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        admin_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`base_url` and `admin_key` default to `TTRL_URL` and `TTRL_ADMIN_KEY`."""
        options = connection(base_url, admin_key, timeout_s, kind="admin")
        super().__init__(httpx.Client(**options, transport=transport), retries)

    read_status = sync_method(_calls.read_status)
    create_tenant = sync_method(_calls.create_tenant)
    list_tenants = sync_method(_calls.list_tenants)
    read_tenant = sync_method(_calls.read_tenant)
    update_tenant = sync_method(_calls.update_tenant)
    delete_tenant = sync_method(_calls.delete_tenant)
    create_key = sync_method(_calls.create_key)
    list_keys = sync_method(_calls.list_keys)
    revoke_key = sync_method(_calls.revoke_key)
    trigger_cycle = sync_method(_calls.trigger_cycle)
    list_all_cycles = sync_method(_calls.list_all_cycles)
    list_cycles = sync_method(_calls.list_cycles)
    read_cycle = sync_method(_calls.read_cycle)
    cancel_cycle = sync_method(_calls.cancel_cycle)
    list_versions = sync_method(_calls.list_versions)
    read_version = sync_method(_calls.read_version)
    promote = sync_method(_calls.promote)
    rollback = sync_method(_calls.rollback)
    list_swaps = sync_method(_calls.list_swaps)
    list_queries = sync_method(_calls.list_queries)

    def watch(
        self, cycle: Cycle, *, poll_s: float = 1.0, timeout_s: float | None = None
    ) -> Generator[Cycle]:
        """The cycle each time that it has changed, with its steps, until it is final.

        Raises:
            WaitTimeoutError: it was not final in `timeout_s`. It goes on.
        """
        deadline = _deadline(timeout_s)
        seen: Cycle | None = None
        while seen is None or not seen.is_final:
            now = self.read_cycle(cycle.tenant, cycle.id)
            if now != seen:
                seen = now
                yield now
            if not now.is_final:
                time.sleep(_next_poll_s(now, poll_s, deadline))

    def wait(self, cycle: Cycle, *, poll_s: float = 1.0, timeout_s: float | None = None) -> Cycle:
        """The cycle when it is final.

        Raises:
            WaitTimeoutError: it was not final in `timeout_s`. It goes on.
        """
        latest = cycle
        for now in self.watch(cycle, poll_s=poll_s, timeout_s=timeout_s):
            latest = now
        return latest


class AsyncTTRLClient(AsyncSender):
    """The admin API, for asyncio. Close it, or use it in an `async with` block.

    Every method raises a `TTRLError` of the tree in `_errors`, and `ValueError` for an argument
    that the server would refuse anyway.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        admin_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`base_url` and `admin_key` default to `TTRL_URL` and `TTRL_ADMIN_KEY`."""
        options = connection(base_url, admin_key, timeout_s, kind="admin")
        super().__init__(httpx.AsyncClient(**options, transport=transport), retries)

    read_status = async_method(_calls.read_status)
    create_tenant = async_method(_calls.create_tenant)
    list_tenants = async_method(_calls.list_tenants)
    read_tenant = async_method(_calls.read_tenant)
    update_tenant = async_method(_calls.update_tenant)
    delete_tenant = async_method(_calls.delete_tenant)
    create_key = async_method(_calls.create_key)
    list_keys = async_method(_calls.list_keys)
    revoke_key = async_method(_calls.revoke_key)
    trigger_cycle = async_method(_calls.trigger_cycle)
    list_all_cycles = async_method(_calls.list_all_cycles)
    list_cycles = async_method(_calls.list_cycles)
    read_cycle = async_method(_calls.read_cycle)
    cancel_cycle = async_method(_calls.cancel_cycle)
    list_versions = async_method(_calls.list_versions)
    read_version = async_method(_calls.read_version)
    promote = async_method(_calls.promote)
    rollback = async_method(_calls.rollback)
    list_swaps = async_method(_calls.list_swaps)
    list_queries = async_method(_calls.list_queries)

    async def watch(
        self, cycle: Cycle, *, poll_s: float = 1.0, timeout_s: float | None = None
    ) -> AsyncGenerator[Cycle]:
        """The cycle each time that it has changed, with its steps, until it is final.

        Raises:
            WaitTimeoutError: it was not final in `timeout_s`. It goes on.
        """
        deadline = _deadline(timeout_s)
        seen: Cycle | None = None
        while seen is None or not seen.is_final:
            now = await self.read_cycle(cycle.tenant, cycle.id)
            if now != seen:
                seen = now
                yield now
            if not now.is_final:
                await asyncio.sleep(_next_poll_s(now, poll_s, deadline))

    async def wait(
        self, cycle: Cycle, *, poll_s: float = 1.0, timeout_s: float | None = None
    ) -> Cycle:
        """The cycle when it is final.

        Raises:
            WaitTimeoutError: it was not final in `timeout_s`. It goes on.
        """
        latest = cycle
        async for now in self.watch(cycle, poll_s=poll_s, timeout_s=timeout_s):
            latest = now
        return latest


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _next_poll_s(cycle: Cycle, poll_s: float, deadline: float | None) -> float:
    if deadline is None:
        return poll_s
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise WaitTimeoutError(f"Cycle {cycle.id} of {cycle.tenant} is {cycle.status} still.")
    return min(poll_s, left_s)
