"""The web process as it is in production, `ttrl-server serve`, to be killed and started again on
the same directory, port and database.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from socket import socket
from typing import Any, Final

import aiohttp
import psutil
from sqlalchemy import text

from benchmarks.outages import Store
from benchmarks.result import ROOT
from server.auth import Keys
from server.clock import SystemClock
from server.config import Settings
from server.db.engine import Database
from server.db.migrate import upgrade
from server.db.tenants import create_key, create_tenant
from server.engine.identity import FILES, identity_dir

API_KEY: Final = "sk-ttrl-durability"
PEPPER: Final = "durability"
MODEL: Final = ROOT / "demo" / "model"
START_S: Final = 180.0
POLL_S: Final = 0.05


class WebProcess:
    """One web process after the other. `settings` are the server's own."""

    def __init__(self, data_dir: Path, engine_url: str, store: Store, **settings: Any) -> None:
        chosen = {
            "data_dir": data_dir,
            "database_url": store.url,
            "engine_urls": engine_url,
            "model": MODEL,
            "port": _free_port(),
            "worker": False,
            "admin_key": "unused",
            "key_pepper": PEPPER,
            "log_level": "warning",
            **settings,
        }
        data_dir.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TTRL_")}
        self._environment = kept | {f"TTRL_{k.upper()}": str(v) for k, v in chosen.items()}
        self._log = data_dir.parent / f"{data_dir.name}.log"  # not on the disk that fills up
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = Settings(data_dir=data_dir, model=str(MODEL))
        self.database_url = store.url
        self.url = f"http://127.0.0.1:{chosen['port']}"

    async def prepare(self) -> None:
        """The schema, a tenant with a key, and an identity adapter that no engine looks at."""
        identity = identity_dir(self._settings)
        identity.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (identity / name).touch()
        database = Database(self.database_url)
        await upgrade(database)
        now, digest = SystemClock().now(), Keys("unused", PEPPER.encode()).digest(API_KEY)
        async with database.transaction() as session:
            tenant = await create_tenant(session, name="durable", settings={}, now=now)
            await create_key(
                session, tenant_id=tenant.id, name="k", prefix="sk", digest=digest, now=now
            )
            if not database.is_sqlite:  # the order of rows must tell the order of writing
                await session.execute(text("ALTER TABLE queries SET (autovacuum_enabled = off)"))
        await database.close()

    def start(self) -> None:
        """Start it; it may not answer yet."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "server.cli", "serve"],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """The process that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def rss_bytes(self) -> int:
        """Resident memory."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def kill(self) -> None:
        """End it as it stands."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order, and for sure."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    async def health(self) -> tuple[int, dict[str, Any]]:
        """Status and body of `/readyz`; status 0 while nobody answers."""
        with suppress(aiohttp.ClientError, TimeoutError):
            timeout = aiohttp.ClientTimeout(total=30)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self.url}/readyz") as response,
            ):
                return response.status, await response.json()
        return 0, {}

    async def until(
        self, *, status: int, log: str | None = None, within_s: float = START_S
    ) -> None:
        """Wait until `/readyz` says so.

        Raises:
            RuntimeError: the process ended, or it did not in time; with the end of its output.
        """
        seen: Any = None
        try:
            async with asyncio.timeout(within_s):
                while not _is(seen, status, log):
                    if self._process is None or self._process.poll() is not None:
                        raise RuntimeError(f"the web process ended:\n{self.tail()}")
                    await asyncio.sleep(POLL_S)
                    seen = await self.health()
        except TimeoutError:
            raise RuntimeError(f"still {seen} after {within_s:.0f} s:\n{self.tail()}") from None

    def tail(self) -> str:
        """The end of its output."""
        return self._log.read_text(errors="replace")[-3000:]

    async def rows(self) -> list[tuple[str, str]]:
        """(id, marker) of the log in the order of writing."""
        database = Database(self.database_url)
        # Transactions of the recorder come one after another, and rows of one in their order.
        order = "rowid" if database.is_sqlite else "xmin::text::bigint, ctid"
        statement = text(f"SELECT id, prompt FROM queries ORDER BY {order}")
        async with database.transaction(write=False) as session:
            found = [(row.id, _marker(row.prompt)) for row in await session.execute(statement)]
        await database.close()
        return found


def _marker(prompt: Any) -> str:
    text = prompt if isinstance(prompt, str) else repr(prompt)
    return text.partition("marker ")[2].partition(" ")[0]


def _is(seen: Any, status: int, log: str | None) -> bool:
    return seen is not None and seen[0] == status and log in (None, seen[1]["log"]["state"])


def _free_port() -> int:
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@asynccontextmanager
async def web_process(
    data_dir: Path, engine_url: str, store: Store, **settings: Any
) -> AsyncGenerator[WebProcess]:
    """A web process that is ready, and ended with the block."""
    web = WebProcess(data_dir, engine_url, store, **settings)
    await web.prepare()
    web.start()
    try:
        await web.until(status=200)
        yield web
    finally:
        web.stop()
