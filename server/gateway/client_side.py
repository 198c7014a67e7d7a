"""The client's side of a request, below Starlette: reading with limits, and noticing that the
client has left, which must stop the engine at once and not at the next token.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Message, Receive, Scope

from server.config import Settings
from server.errors import BodyTooLarge, BodyTooSlow, Unauthorized
from server.leaving import ARRIVED, Leaving


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
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    arrived = scope.get(ARRIVED)
    body = None if arrived is None else arrived()
    if body is None:
        body = await _receive_body(receive, settings, max_bytes)
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return body


async def _receive_body(receive: Receive, settings: Settings, max_bytes: int) -> bytes:
    """As it comes; what is too long is not read to its end."""
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
    return body


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {max_bytes} bytes.")


async def _next_message(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientLeft
    return message


def watched(receive: Receive, timeout_s: float, leaving: Leaving | None = None) -> Watch:
    """Run a block until it ends, the time is over, or the client leaves: as `leaving` says, or
    else as `receive` does, in a task of its own.

    Raises:
        ClientLeft: the client left; the block was cancelled where it waited.
        TimeoutError: the time is over; likewise.
    """
    return Watch(receive, timeout_s, leaving)


class Watch:
    """See `watched`. Not a generator: those cost more than what is done here."""

    __slots__ = ("_deadline", "_has_left", "_leaving", "_receive", "_watcher")

    def __init__(self, receive: Receive, timeout_s: float, leaving: Leaving | None) -> None:
        self._receive = receive
        self._leaving = leaving
        self._deadline = asyncio.timeout(timeout_s)
        self._has_left = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        await self._deadline.__aenter__()
        if self._leaving is None:
            self._watcher = asyncio.create_task(self._watch())
        else:
            self._leaving.tell(self._left)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        if self._leaving is not None:
            self._leaving.tell(None)
        try:
            await self._deadline.__aexit__(kind, error, traceback)
        except TimeoutError:
            if self._has_left:
                raise ClientLeft from None
            raise

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left()

    def _left(self) -> None:
        self._has_left = True
        self._deadline.reschedule(asyncio.get_running_loop().time())
