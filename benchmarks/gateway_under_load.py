"""The web process that the overload benchmark loads: the product's app behind the product's
connections, with several tenants, and a route that says what it holds.

`python -m benchmarks.gateway_under_load DATA_DIR ENGINE_URL`; settings come from the environment.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.product import make_tenants, serve_product
from server.app import create_app
from server.auth import Keys
from server.config import Settings
from server.parts import Parts

TENANTS: Final = ("quiet", "flood", "other", "another")


def key_of(tenant: str) -> str:
    """A tenant's API key."""
    return f"sk-ttrl-{tenant}"


class Counting:
    """The app, and `GET /counts`."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app = app
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] != "http" or scope["path"] != "/counts":
            await self._app(scope, receive, send)
            return
        gc.collect()
        body = json.dumps(self._counts()).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _counts(self) -> dict[str, float]:
        queue = self._parts.admission.queue
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {
            "tasks": len(asyncio.all_tasks()),
            "files": len(os.listdir("/proc/self/fd")),
            "seats": queue.in_use,
            "waiting": queue.waiting,
            "rss_mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        }


def main() -> None:
    """Serve until terminated; the URL is the first line printed."""
    data_dir, engine_url = sys.argv[1:]
    settings = Settings(data_dir=Path(data_dir))
    keys = Keys("unused", b"benchmark")
    asyncio.run(make_tenants(settings, keys, {name: key_of(name) for name in TENANTS}))
    identity = settings.data_dir / "identity"
    parts = Parts.assemble(settings, keys=keys, engine_urls=[engine_url], identity_dir=identity)
    serve_product(Counting(create_app(parts), parts), settings)


if __name__ == "__main__":
    main()
