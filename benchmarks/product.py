"""The product as a benchmark runs it: its tenants, and its app behind its own connections."""

from __future__ import annotations

from collections.abc import Mapping
from socket import socket

import uvicorn
from starlette.types import ASGIApp

from benchmarks.serving import listen
from server.app import http_config, raise_file_limit
from server.auth import Keys
from server.clock import SystemClock
from server.config import Settings
from server.db.engine import Database
from server.db.migrate import upgrade
from server.db.tenants import create_key, create_tenant, tenant_by_name


async def make_tenants(settings: Settings, keys: Keys, api_keys: Mapping[str, str]) -> None:
    """Migrate the database, and make the tenants that are not there, each with its API key."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.sqlalchemy_url)
    await upgrade(database)
    now = SystemClock().now()
    async with database.transaction() as session:
        for name, key in api_keys.items():
            if await tenant_by_name(session, name) is None:
                tenant = await create_tenant(session, name=name, settings={}, now=now)
                digest = keys.digest(key)
                await create_key(
                    session, tenant_id=tenant.id, name=name, prefix=key[:8], digest=digest, now=now
                )
    await database.close()


def serve_product(app: ASGIApp, settings: Settings, *, port: int = 0) -> None:
    """Serve with all bounds on connections; the URL is the first line printed. A given port may be
    shared with other processes that give it.
    """
    raise_file_limit(settings.max_connections)
    listener: socket = listen(port)
    config = http_config(app, settings, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])
