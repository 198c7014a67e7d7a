"""The two clients. An operation is described in `_calls`; here it is only sent, in both worlds by
the same few lines.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import httpx

from ttrl_client import _calls
from ttrl_client._calls import Call, Outcome, Retries
from ttrl_client._errors import ConfigurationError, WaitTimeoutError
from ttrl_client.types import Cycle

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_S: Final = 60.0  # a promotion loads the version on every engine before it answers
URL_VARIABLE: Final = "TTRL_URL"
ADMIN_KEY_VARIABLE: Final = "TTRL_ADMIN_KEY"


def _sync(build: Callable[P, Call[T]]) -> Callable[Concatenate[TTRLClient, P], T]:
    """A method of the sync client that sends what `build` describes."""

    @functools.wraps(build)
    def method(client: TTRLClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client.send(build(*args, **kwargs))

    return method


def _async(
    build: Callable[P, Call[T]],
) -> Callable[Concatenate[AsyncTTRLClient, P], Awaitable[T]]:
    """A method of the async client that sends what `build` describes."""

    @functools.wraps(build)
    async def method(client: AsyncTTRLClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client.send(build(*args, **kwargs))

    return method


class TTRLClient:
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
        self._retries = retries or Retries()
        self._http = httpx.Client(
            **_connection(base_url, admin_key, timeout_s), transport=transport
        )

    read_status = _sync(_calls.read_status)
    create_tenant = _sync(_calls.create_tenant)
    list_tenants = _sync(_calls.list_tenants)
    read_tenant = _sync(_calls.read_tenant)
    update_tenant = _sync(_calls.update_tenant)
    delete_tenant = _sync(_calls.delete_tenant)
    create_key = _sync(_calls.create_key)
    list_keys = _sync(_calls.list_keys)
    revoke_key = _sync(_calls.revoke_key)
    trigger_cycle = _sync(_calls.trigger_cycle)
    list_all_cycles = _sync(_calls.list_all_cycles)
    list_cycles = _sync(_calls.list_cycles)
    read_cycle = _sync(_calls.read_cycle)
    cancel_cycle = _sync(_calls.cancel_cycle)
    list_versions = _sync(_calls.list_versions)
    read_version = _sync(_calls.read_version)
    promote = _sync(_calls.promote)
    rollback = _sync(_calls.rollback)
    list_swaps = _sync(_calls.list_swaps)
    list_queries = _sync(_calls.list_queries)

    def send(self, call: Call[T]) -> T:
        """Send an operation, again if that is harmless and promising."""
        num_tries = 1
        while True:
            outcome = self._attempt(call)
            pause_s = call.pause_s(outcome, num_tries, self._retries)
            if pause_s is None:
                return call.result(outcome)
            time.sleep(pause_s)
            num_tries += 1

    def _attempt(self, call: Call[Any]) -> Outcome:
        try:
            return self._http.request(**call.request())
        except httpx.TransportError as error:
            return error

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

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> TTRLClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncTTRLClient:
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
        self._retries = retries or Retries()
        self._http = httpx.AsyncClient(
            **_connection(base_url, admin_key, timeout_s), transport=transport
        )

    read_status = _async(_calls.read_status)
    create_tenant = _async(_calls.create_tenant)
    list_tenants = _async(_calls.list_tenants)
    read_tenant = _async(_calls.read_tenant)
    update_tenant = _async(_calls.update_tenant)
    delete_tenant = _async(_calls.delete_tenant)
    create_key = _async(_calls.create_key)
    list_keys = _async(_calls.list_keys)
    revoke_key = _async(_calls.revoke_key)
    trigger_cycle = _async(_calls.trigger_cycle)
    list_all_cycles = _async(_calls.list_all_cycles)
    list_cycles = _async(_calls.list_cycles)
    read_cycle = _async(_calls.read_cycle)
    cancel_cycle = _async(_calls.cancel_cycle)
    list_versions = _async(_calls.list_versions)
    read_version = _async(_calls.read_version)
    promote = _async(_calls.promote)
    rollback = _async(_calls.rollback)
    list_swaps = _async(_calls.list_swaps)
    list_queries = _async(_calls.list_queries)

    async def send(self, call: Call[T]) -> T:
        """Send an operation, again if that is harmless and promising."""
        num_tries = 1
        while True:
            outcome = await self._attempt(call)
            pause_s = call.pause_s(outcome, num_tries, self._retries)
            if pause_s is None:
                return call.result(outcome)
            await asyncio.sleep(pause_s)
            num_tries += 1

    async def _attempt(self, call: Call[Any]) -> Outcome:
        try:
            return await self._http.request(**call.request())
        except httpx.TransportError as error:
            return error

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

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncTTRLClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _connection(base_url: str | None, admin_key: str | None, timeout_s: float) -> dict[str, Any]:
    key = (admin_key or os.environ.get(ADMIN_KEY_VARIABLE, "")).strip()
    if not key:
        raise ConfigurationError(f"No admin key: pass `admin_key`, or set {ADMIN_KEY_VARIABLE}.")
    if not key.isascii():
        raise ConfigurationError("The admin key is not ASCII.")
    return {
        "base_url": (base_url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/"),
        "headers": {"Authorization": f"Bearer {key}", "Accept": "application/json"},
        "timeout": timeout_s,
    }


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _next_poll_s(cycle: Cycle, poll_s: float, deadline: float | None) -> float:
    if deadline is None:
        return poll_s
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise WaitTimeoutError(f"Cycle {cycle.id} of {cycle.tenant} is {cycle.status} still.")
    return min(poll_s, left_s)
