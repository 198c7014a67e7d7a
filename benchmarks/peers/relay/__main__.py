"""A bare relay: FastAPI and aiohttp, bytes in, bytes out. No keys, no checks, no log.

`python -m benchmarks.peers.relay ENGINE_URL [JOURNAL]` serves until terminated; its URL is the
first line printed. The server under it and its settings are those of our gateway. With a journal
each whole answer is on the disk before it goes out: what any log that promises this costs.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import aiohttp
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from benchmarks.serving import serve_forever


class Journal:
    """The least that a durable log can be: answers in a file, synced one after the other, in a
    thread, since others must go on while the disk works.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._thread = ThreadPoolExecutor(max_workers=1)

    async def keep(self, answer: bytes) -> None:
        """Returns when it is on the disk."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, answer)

    def _write(self, answer: bytes) -> None:
        os.write(self._file, answer)
        os.fdatasync(self._file)


def create_relay(engine_url: str, journal: Journal | None = None) -> FastAPI:
    """The relay to one engine."""
    sessions: list[aiohttp.ClientSession] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            sessions.append(session)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/chat/completions")
    async def relay(request: Request) -> Response:
        upstream = await sessions[0].post(
            f"{engine_url}/v1/chat/completions",
            data=await request.body(),
            headers={"Content-Type": "application/json"},
        )
        kind = upstream.headers["Content-Type"]
        if kind.startswith("text/event-stream"):
            return StreamingResponse(upstream.content.iter_any(), upstream.status, media_type=kind)
        answer = await upstream.read()
        if journal is not None:
            await journal.keep(answer)
        return Response(answer, upstream.status, media_type=kind)

    return app


if __name__ == "__main__":
    serve_forever(create_relay(sys.argv[1], *map(Journal, sys.argv[2:])))
