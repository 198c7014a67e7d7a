"""Carries an engine's answer to the client: whole, or event by event as it comes.

What tells a client "this is all" goes out when the answer is on a disk. A client that leaves
cancels the block that reads from the engine, which closes that connection and so stops the
generation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import Receive, Send

from server.errors import EngineFailed, EngineUnavailable, LogUnavailable, TTRLError
from server.gateway.call import Call
from server.gateway.client_side import ClientLeft
from server.gateway.engine_answer import MAX_ANSWER_BYTES
from server.gateway.engine_errors import engine_error
from server.gateway.engine_http import EngineResponse
from server.gateway.rendering import Rendering
from server.gateway.sse import DONE, EventSplitter, payload
from server.gateway.transcript import read_chunk

DRAIN_S: Final = 1.0
WENT_AWAY: Final = "The engine went away before it had finished."
TOO_SLOW: Final = "The engine did not answer in time."


async def relay_whole(call: Call, receive: Receive, send: Send) -> None:
    """Answer in one piece: read, log, send.

    Raises:
        TTRLError: whatever went wrong; nothing was sent.
        ClientLeft: the client did not wait; the call is logged as aborted.
    """
    try:
        async with call.watched(receive), call.open() as response:
            data = await _read_whole(response)
            chunk = read_chunk(data)
    except ClientLeft:
        await call.record_failure("aborted")
        raise
    except TimeoutError:
        raise EngineFailed(TOO_SLOW) from None
    call.saw_first_byte()
    if chunk.error is not None:
        raise engine_error(500, data, hidden={})
    call.transcript.add(chunk)
    await send_whole(call, call.rendering().whole(data, chunk), send)


async def send_whole(call: Call, body: bytes, send: Send) -> None:
    """Log the call, then send the answer.

    Raises:
        LogUnavailable: it is not stored; nothing was sent.
    """
    await call.record("ok")
    length = (b"content-length", str(len(body)).encode())
    headers = [*call.headers(b"application/json"), length]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _read_whole(response: EngineResponse) -> bytes:
    data = await response.read(MAX_ANSWER_BYTES + 1)
    if len(data) > MAX_ANSWER_BYTES:
        raise EngineFailed("The engine's answer is too large.")
    return data


async def relay_stream(call: Call, receive: Receive, send: Send) -> None:
    """Answer as a stream of events.

    Raises:
        TTRLError: something went wrong before the first event; nothing was sent.
        ClientLeft: the client left; the call is logged as aborted, as far as it came.
    """
    await stream(call, receive, send, _relay_events)


async def stream(call: Call, receive: Receive, send: Send, produce: Produce) -> None:
    """Answer with the events that `produce` sends, and with what ends them.

    Raises:
        TTRLError, ClientLeft: as `relay_stream`.
    """
    rendering = call.rendering()
    out = EventStream(call, send, rendering)
    try:
        async with call.watched(receive):
            await produce(call, out, rendering)
        end = rendering.end()
        await call.record("ok")
    except ClientLeft:
        await call.record_failure("aborted")
        raise
    except TimeoutError:
        await _fail(call, out, EngineFailed(TOO_SLOW))
    except LogUnavailable as error:
        await out.fail(error)
    except TTRLError as error:
        await _fail(call, out, error)
    else:
        await out.close(end)


async def _fail(call: Call, out: EventStream, error: TTRLError) -> None:
    """Tell the client in the way that is still open."""
    if not out.is_open:
        raise error
    await call.record_failure("error")
    await out.fail(error)


async def _relay_events(call: Call, out: EventStream, rendering: Rendering) -> None:
    async with call.open() as response:
        await _pump(call, response, out, rendering)


async def _pump(
    call: Call, response: EngineResponse, out: EventStream, rendering: Rendering
) -> None:
    """Pass events on until `[DONE]`, which is kept back."""
    splitter = EventSplitter()
    relay = _EventRelay(call, rendering)
    while data := await response.readany():
        try:
            is_done = relay.take(splitter.feed(data))
        finally:
            if relay.ready:
                call.saw_first_byte()
                await out.send(b"".join(relay.ready))
                relay.ready.clear()
        if is_done:
            await drain(response)
            return
    raise EngineUnavailable(WENT_AWAY)


async def drain(response: EngineResponse) -> None:
    """Read the end of the body, so that the connection can be used again."""
    if response.at_eof:
        return
    try:
        async with asyncio.timeout(DRAIN_S):
            while await response.readany():
                pass
    except TimeoutError:
        response.close()


class _EventRelay:
    """Words events and notes them down; what may go out waits in `ready`."""

    def __init__(self, call: Call, rendering: Rendering) -> None:
        self.ready: list[bytes] = []
        self._call = call
        self._transcript = call.transcript
        self._rendering = rendering
        self._has_begun = False

    def take(self, events: list[bytes]) -> bool:
        """Take in events; True when `[DONE]` is among them.

        Raises:
            TTRLError: the engine's error event, translated.
        """
        for event in events:
            data = payload(event)
            if data is None:
                if self._has_begun:  # a comment must not decide the response's status
                    self.ready.append(event + b"\n\n")
            elif data == DONE:
                return True
            else:
                self._take_data(data)
        return False

    def _take_data(self, data: bytes) -> None:
        chunk = read_chunk(data)
        if chunk.error is not None:
            version = self._call.version
            raise engine_error(500, data, hidden={version.engine_name: version.label})
        self._has_begun = True
        self._transcript.add(chunk)
        if events := self._rendering.event(data, chunk):
            self.ready.append(events)


class EventStream:
    """The response: opened by the first event, so that an error before it has a status."""

    def __init__(self, call: Call, send: Send, rendering: Rendering) -> None:
        self.is_open = False
        self._call = call
        self._send = send
        self._rendering = rendering

    async def send(self, data: bytes) -> None:
        """Send whole events, or comments."""
        await self._open()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def close(self, data: bytes) -> None:
        """Send the last events and end the response."""
        await self._open()
        await self._send({"type": "http.response.body", "body": data})

    async def fail(self, error: TTRLError) -> None:
        """Tell what went wrong and end the response."""
        self._call.seen.has_failed = True
        await self.close(self._rendering.failed(error))

    async def _open(self) -> None:
        if self.is_open:
            return
        self.is_open = True
        headers = [
            *self._call.headers(b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),  # proxies must not collect events
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})


Produce = Callable[[Call, EventStream, Rendering], Awaitable[None]]
