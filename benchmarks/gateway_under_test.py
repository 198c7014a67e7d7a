"""The web process that a benchmark measures: the product's app on a SQLite database, with one
tenant, in front of a given engine.

`python -m benchmarks.gateway_under_test DATA_DIR ENGINE_URL IDENTITY_DIR [PORT]`

Several processes can have the same directory and the same port.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

from benchmarks.serving import serve_forever
from server.app import create_app
from server.auth import Keys
from server.clock import SystemClock
from server.config import Settings
from server.db.engine import Database
from server.db.migrate import upgrade
from server.db.tenants import create_key, create_tenant, tenant_by_name
from server.parts import Parts

API_KEY: Final = "sk-ttrl-benchmark"


async def _prepare(settings: Settings, keys: Keys) -> None:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.sqlalchemy_url)
    await upgrade(database)
    now = SystemClock().now()
    async with database.transaction() as session:
        if await tenant_by_name(session, "bench") is None:
            tenant = await create_tenant(session, name="bench", settings={}, now=now)
            await create_key(
                session,
                tenant_id=tenant.id,
                name="bench",
                prefix=API_KEY[:8],
                digest=keys.digest(API_KEY),
                now=now,
            )
    await database.close()


def main() -> None:
    """Serve until terminated; the URL is the first line printed."""
    data_dir, engine_url, identity, *port = sys.argv[1:]
    settings = Settings(data_dir=Path(data_dir))
    keys = Keys("unused", b"benchmark")
    asyncio.run(_prepare(settings, keys))
    parts = Parts.assemble(
        settings, keys=keys, engine_urls=[engine_url], identity_dir=Path(identity)
    )
    serve_forever(create_app(parts), port=int(port[0]) if port else 0)


if __name__ == "__main__":
    main()
