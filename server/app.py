"""The web process: gateway and admin API in one FastAPI app, with the children that it runs."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from server.admin.router import admin_router
from server.auth import Keys
from server.config import Settings
from server.connections import Bounds, Watch
from server.db.engine import Database
from server.db.failures import refused_at_start
from server.db.migrate import check, upgrade
from server.embedded import Embedded
from server.engine.identity import identity_dir, model_digest
from server.engine.model_files import check_model
from server.errors import ConfigurationError, DatabaseAway
from server.gateway.direct import Shortcut
from server.gateway.routes import gateway_router
from server.health import health_router
from server.http_errors import install_error_handlers
from server.logs import configure_logging
from server.observability.access import AccessLog
from server.observability.observer import Observer
from server.parts import Parts
from server.scrape import scrape_router
from server.waiting import DatabaseWait

logger = logging.getLogger(__name__)

GRACE_S = 10  # requests in flight may finish so long after SIGTERM
BODY_GRACE_S = 5  # a body that is late is answered before its connection is closed
OTHER_FILES = 512

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

DESCRIPTION = """
An OpenAI-compatible server that keeps getting better on its own traffic, without labels.
The data plane under `/v1` is OpenAI's; the control plane is under `/admin/v1`.
"""


def create_app(
    parts: Parts, *, lifespan: Lifespan | None = None, access_log: AccessLog | None = None
) -> FastAPI:
    """The app over parts that somebody runs: by default it runs them itself."""

    @asynccontextmanager
    async def run_parts(_app: FastAPI) -> AsyncGenerator[None]:
        async with parts.running():
            yield

    app = FastAPI(
        title="TTRL server",
        version=version("ttrl-server"),
        description=DESCRIPTION,
        lifespan=lifespan or run_parts,
    )
    install_error_handlers(app)
    app.include_router(gateway_router(parts.gateway))
    app.include_router(admin_router(parts.admin))
    app.include_router(health_router(parts))
    app.include_router(scrape_router(parts))
    app.add_middleware(Shortcut, routes=app.routes)
    app.add_middleware(Observer, metrics=parts.metrics, access_log=access_log)
    return app


async def prepare(settings: Settings) -> None:
    """Everything that may fail before a port is open, so that it fails with one clear line.

    Raises:
        DatabaseAway: only the database is missing, and may be there later.
        ConfigurationError: the model's files, the secrets or the database are not as needed.
    """
    for warning in check_model(settings.model).warnings:
        logger.warning(warning)
    await prepare_database(settings)


async def prepare_database(settings: Settings) -> None:
    """Bring a SQLite file to this program's schema; refuse another one's.

    Raises:
        DatabaseAway, ConfigurationError: as `prepare`.
    """
    with refused_at_start(settings.sqlalchemy_url):
        database = Database(settings.sqlalchemy_url)
        try:
            if database.is_sqlite:
                await upgrade(database)
            await check(database)
        finally:
            await database.close()


def listen(settings: Settings) -> socket.socket:
    """The socket that the server will answer on; nobody can connect yet.

    Bound before anything is started, so that a port in use does not cost an engine's start.

    Raises:
        ConfigurationError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"{settings.host}:{settings.port} cannot be bound: {error.strerror}. "
            "Set TTRL_PORT (and TTRL_HOST), or end what listens there."
        ) from error
    return listener


def http_config(app: ASGIApp, settings: Settings, **options: Any) -> uvicorn.Config:
    """How an app is served: with all bounds on its connections."""
    watch = Watch(
        Bounds(
            connections=settings.max_connections,
            head_bytes=settings.max_header_bytes,
            message_bytes=2 * settings.max_body_bytes + 2**20,
            headers=settings.max_headers,
            head_s=settings.header_timeout_s,
            body_s=settings.body_timeout_s + BODY_GRACE_S,
            unread_s=settings.unread_timeout_s,
        )
    )
    return uvicorn.Config(
        app,
        http=cast(Any, watch.protocol),  # uvicorn calls it, class or not
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # who a client is, its key says
        timeout_keep_alive=settings.idle_timeout_s,
        **options,
    )


def raise_file_limit(connections: int) -> None:
    """Let this process have a file for each connection and its engine's, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def access_log(settings: Settings) -> AccessLog | None:
    """Where each request's line goes; None: nowhere."""
    if not settings.access_log or settings.log_level not in ("debug", "info"):
        return None
    return AccessLog(sys.stderr.write, style=settings.log_format)


def run_server(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM."""
    configure_logging(settings, process="web")
    wait = _prepare_or_wait(settings)
    keys = Keys.load(settings)
    listener = listen(settings)
    embedded = Embedded(settings)
    base_digest = model_digest(settings.model)
    parts = Parts.assemble(
        settings,
        keys=keys,
        engine_urls=embedded.engine_urls,
        identity_dir=identity_dir(settings, base_digest),
        base_digest=base_digest,
    )

    def give_up() -> None:
        server.should_exit = True

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        async with wait.running(give_up), parts.running(), embedded.running():
            yield

    app = create_app(parts, lifespan=lifespan, access_log=access_log(settings))
    server = uvicorn.Server(http_config(app, settings, timeout_graceful_shutdown=GRACE_S))
    raise_file_limit(settings.max_connections)
    with suppress(KeyboardInterrupt), listener:
        server.run(sockets=[listener])
    if wait.failure is not None:
        raise wait.failure
    if not server.started:
        raise SystemExit(1)


def _prepare_or_wait(settings: Settings) -> DatabaseWait:
    """What is to be waited for after the start: nothing, if the database is there."""
    try:
        asyncio.run(prepare(settings))
    except DatabaseAway as error:
        if not settings.database_wait_s:
            raise
        logger.warning("%s Starting without it.", error.message)
        return DatabaseWait(lambda: prepare_database(settings), timeout_s=settings.database_wait_s)
    return DatabaseWait(_nothing, timeout_s=0)


async def _nothing() -> None:
    """There is nothing to wait for."""
