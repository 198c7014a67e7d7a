"""The client's side of a request, below Starlette: reading with limits, and noticing that the
client has left, which must stop the engine at once and not at the next token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.types import Message, Receive, Scope

from server.config import Settings
from server.errors import BodyTooLarge, BodyTooSlow, Unauthorized


class ClientLeft(Exception):
    """The client closed the connection: there is nobody to answer."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """A request header by its lower-case name."""
    return next((value for key, value in scope["headers"] if key == name), None)


def api_key(scope: Scope) -> str:
    """The key of `Authorization: Bearer <key>`, or else of `x-api-key`, as Anthropic's clients send
    it.

    Raises:
        Unauthorized: there is none.
    """
    scheme, _, key = (header(scope, b"authorization") or b"").partition(b" ")
    if scheme.lower() != b"bearer" or not key.strip():
        key = header(scope, b"x-api-key") or b""
    if not key.strip():
        raise Unauthorized("An API key is needed: `Authorization: Bearer <key>`.")
    return key.strip().decode("latin1")


async def read_body(
    scope: Scope, receive: Receive, settings: Settings, *, max_bytes: int | None = None
) -> bytes:
    """The request's body, of at most `max_bytes` (default: what the settings allow).

    Raises:
        BodyTooLarge: it is longer than the limit; no more than that is ever held.
        BodyTooSlow: it comes too slowly.
        ClientLeft: the client left before it was complete.
    """
    max_bytes = max_bytes or settings.max_body_bytes
    too_large = BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > max_bytes:
        raise too_large
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            message = await _next_message(receive)
            body: bytes = message.get("body", b"")
            if message.get("more_body", False):
                parts = bytearray(body)
                while message.get("more_body", False) and len(parts) <= max_bytes:
                    message = await _next_message(receive)
                    parts += message.get("body", b"")
                body = bytes(parts)
    except TimeoutError:
        raise BodyTooSlow("The body did not arrive in time.") from None
    if len(body) > max_bytes:
        raise too_large
    return body


async def _next_message(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientLeft
    return message


@asynccontextmanager
async def watched(receive: Receive, timeout_s: float) -> AsyncGenerator[None]:
    """Run a block until it ends, the time is over, or the client leaves.

    Raises:
        ClientLeft: the client left; the block was cancelled where it waited.
        TimeoutError: the time is over; likewise.
    """
    has_left = False
    loop = asyncio.get_running_loop()

    async def watch(deadline: asyncio.Timeout) -> None:
        nonlocal has_left
        while (await receive())["type"] != "http.disconnect":
            pass
        has_left = True
        deadline.reschedule(loop.time())

    try:
        async with asyncio.timeout(timeout_s) as deadline:
            watcher = asyncio.create_task(watch(deadline))
            try:
                yield
            finally:
                watcher.cancel()
    except TimeoutError:
        if has_left:
            raise ClientLeft from None
        raise
