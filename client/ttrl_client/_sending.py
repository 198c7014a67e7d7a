"""What all clients share: an operation is described in a `Call`; here it is only sent, in both
worlds by the same few lines.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

import httpx

from ttrl_client._calls import Call, Outcome, Retries
from ttrl_client._errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:8000"
URL_VARIABLE: Final = "TTRL_URL"


class Sender:
    """Sends operations, blocking."""

    def __init__(self, http: httpx.Client, retries: Retries | None) -> None:
        self._http = http
        self._retries = retries or Retries()

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

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncSender:
    """Sends operations, for asyncio."""

    def __init__(self, http: httpx.AsyncClient, retries: Retries | None) -> None:
        self._http = http
        self._retries = retries or Retries()

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

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def sync_method(build: Callable[P, Call[T]]) -> Callable[Concatenate[Sender, P], T]:
    """A method of a sync client that sends what `build` describes."""

    @functools.wraps(build)
    def method(client: Sender, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client.send(build(*args, **kwargs))

    return method


def async_method(
    build: Callable[P, Call[T]],
) -> Callable[Concatenate[AsyncSender, P], Awaitable[T]]:
    """A method of an async client that sends what `build` describes."""

    @functools.wraps(build)
    async def method(client: AsyncSender, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client.send(build(*args, **kwargs))

    return method


def connection(
    base_url: str | None, key: str | None, timeout_s: float, *, kind: str
) -> dict[str, Any]:
    """Arguments for `httpx.Client`. `kind` is "admin" or "API": the key that is needed.

    Raises:
        ConfigurationError: there is no key, or one that cannot be sent.
    """
    name = f"{kind.lower()}_key"
    key = (key or os.environ.get(f"TTRL_{name.upper()}", "")).strip()
    if not key:
        raise ConfigurationError(f"No {kind} key: pass `{name}`, or set TTRL_{name.upper()}.")
    if not key.isascii():
        raise ConfigurationError(f"The {kind} key is not ASCII.")
    return {
        "base_url": (base_url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/"),
        "headers": {"Authorization": f"Bearer {key}", "Accept": "application/json"},
        "timeout": timeout_s,
    }
