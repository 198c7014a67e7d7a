"""A bare relay: FastAPI and aiohttp, bytes in, bytes out. No keys, no checks, no log.

`python -m benchmarks.peers.relay ENGINE_URL` serves until terminated; its URL is the first line
printed. The server under it and its settings are those of our gateway.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from benchmarks.serving import serve_forever


def create_relay(engine_url: str) -> FastAPI:
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
        return Response(await upstream.read(), upstream.status, media_type=kind)

    return app


if __name__ == "__main__":
    serve_forever(create_relay(sys.argv[1]))
