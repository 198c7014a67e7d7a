"""The children of `ttrl-server serve`: the engines, and the worker.

They run under guards, so that they end with this process, however it ends. The web process answers
from its first second: with 503 until the engine is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import cast

from server.config import Settings
from server.engine.guard import guarded
from server.engine.identity import ensure_identity
from server.engine.supervisor import EngineSupervisor
from server.errors import TTRLError

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
STABLE_S = 60.0  # running this long earns a fresh, short back-off
STOP_GRACE_S = 10.0


class Embedded:
    """What this process starts beside itself, as far as the settings ask for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        numbers = range(1, 1 if settings.engine_urls else settings.engine_count + 1)
        self._engines = [EngineSupervisor(settings, number=number) for number in numbers]

    @property
    def engine_urls(self) -> tuple[str, ...]:
        """Where the engines answer, or will."""
        return self._settings.engine_urls or tuple(engine.url for engine in self._engines)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Bring the children up in the background, and take them down at the end."""
        bringing_up = asyncio.create_task(self._bring_up(), name="children")
        bringing_up.add_done_callback(_end_process_on_failure)
        try:
            yield
        finally:
            bringing_up.cancel()
            await asyncio.gather(bringing_up, return_exceptions=True)
            await asyncio.gather(*(engine.stop() for engine in self._engines))

    async def _bring_up(self) -> None:
        async with asyncio.TaskGroup() as starting:
            starting.create_task(ensure_identity(self._settings))
            for engine in self._engines:
                starting.create_task(engine.start())
        if self._settings.worker:
            await self._keep_worker()

    async def _keep_worker(self) -> None:
        """Start the worker again whenever it ends or does not start, until cancelled."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            started = time.monotonic()
            try:
                outcome = f"status {await self._run_worker()}"
            except OSError as error:  # no memory, processes or files for it now
                outcome = str(error)
            if time.monotonic() - started >= STABLE_S:
                backoff_s = FIRST_BACKOFF_S
            logger.warning("worker ended", extra={"outcome": outcome, "restart_in_s": backoff_s})
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)

    async def _run_worker(self) -> int:
        """Run one worker until it ends; its exit status."""
        process = await asyncio.create_subprocess_exec(
            *guarded([sys.executable, "-m", "server.cli", "worker"], grace_s=STOP_GRACE_S),
            stdin=asyncio.subprocess.PIPE,  # never written: its end is the guard's signal
            env={**os.environ, **self._worker_environment()},
            start_new_session=True,
        )
        logger.info("worker started", extra={"guard_pid": process.pid})
        try:
            return await process.wait()
        finally:
            await _end(process)

    def _worker_environment(self) -> dict[str, str]:
        return {
            "TTRL_ENGINE_URLS": ",".join(self.engine_urls),
            "TTRL_DATA_DIR": str(self._settings.data_dir.resolve()),
        }


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(STOP_GRACE_S + 5):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def _end_process_on_failure(task: asyncio.Task[None]) -> None:
    """A server whose first start fails says why and ends: nothing would mend it."""
    if task.cancelled() or (error := task.exception()) is None:
        return
    for cause in _leaves(error):
        if isinstance(cause, TTRLError):
            logger.critical("cannot start: %s", cause.message)
        else:
            logger.critical("cannot start", exc_info=cause)
    os.kill(os.getpid(), signal.SIGTERM)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(part)
    else:
        yield error
