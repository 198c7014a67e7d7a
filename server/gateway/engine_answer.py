"""An engine's answer from its first byte on. Until then the request may still go elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import aiohttp

from server.errors import EngineUnavailable
from server.gateway.engine_errors import engine_error

ERROR_EVENT: Final = b'data: {"error"'


class Body:
    """The bytes of an answer, to be read once."""

    __slots__ = ("_content", "_first")

    def __init__(self, first: bytes, content: aiohttp.StreamReader) -> None:
        self._first = first
        self._content = content

    async def iter_any(self) -> AsyncGenerator[bytes]:
        """The bytes as they come."""
        first, self._first = self._first, b""
        if first:
            yield first
        async for data in self._content.iter_any():
            yield data

    def at_eof(self) -> bool:
        """Whether all has been read."""
        return not self._first and self._content.at_eof()

    async def read(self) -> bytes:
        """All that was not read yet."""
        first, self._first = self._first, b""
        return first + await self._content.read()


class EngineAnswer:
    """A response with status 200, open for reading."""

    __slots__ = ("_response", "content")

    def __init__(self, response: aiohttp.ClientResponse, first: bytes) -> None:
        self._response = response
        self.content = Body(first, response.content)

    def close(self) -> None:
        """Close the connection, unless all was read: it can be used again then."""
        self._response.close()


async def begun(response: aiohttp.ClientResponse) -> EngineAnswer:
    """Wait for the first byte.

    vLLM sends a stream's head before it knows whether it can answer, so that what should be a
    status of 503 comes as the first event.

    Raises:
        EngineUnavailable: it says that the engine cannot answer now.
        aiohttp.ClientError: the connection broke.
    """
    first = await response.content.readany()
    if first.startswith(ERROR_EVENT):
        error = engine_error(500, first.partition(b"\n")[0].removeprefix(b"data: "), hidden={})
        if isinstance(error, EngineUnavailable):
            raise error
    return EngineAnswer(response, first)
