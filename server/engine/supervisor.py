"""Keeps one vLLM child running: starts it, watches it, restarts it, and takes it along when it
goes.

The child runs under a guard process (guard.py), so that the whole vLLM tree ends with this process,
also when this process is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from server.config import Settings, environment_of_children
from server.engine.client import EngineClient
from server.engine.guard import end_session, guarded
from server.engine.launch import EngineCommand, engine_command
from server.errors import EngineUnavailable

logger = logging.getLogger(__name__)

SupervisorState = Literal["stopped", "starting", "running", "backing_off"]

MAX_BACKOFF_S = 30.0
STABLE_S = 60.0  # running this long earns a fresh, short back-off
START_POLL_S = 0.2
WATCH_POLL_S = 5.0
HANG_S = 60.0  # a running engine that does not answer for so long is restarted
STOP_GRACE_S = 10.0
NUM_OLD_LOGS = 3
TAIL_BYTES = 4000

MakeCommand = Callable[[int], EngineCommand]


class EngineSupervisor:
    """One vLLM child at a URL that stays the same over restarts.

    `make_command` turns a port into the command; default: vLLM for these settings. Its output goes
    to `<data_dir>/logs/engine.log` (`engine-2.log` for number 2); a new log begins at each start,
    three old ones are kept.
    """

    def __init__(
        self, settings: Settings, *, number: int = 1, make_command: MakeCommand | None = None
    ) -> None:
        self._settings = settings
        self._make_command = make_command or partial(_vllm_command, settings, number)
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        name = "engine.log" if number == 1 else f"engine-{number}.log"
        self.log_path = settings.data_dir / "logs" / name
        self.state: SupervisorState = "stopped"
        self.restarts = 0
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The guard's process id, while there is one."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the engine, and return when it answers.

        Raises:
            EngineUnavailable: it ended or did not answer in `engine_start_timeout_s`; the message
                ends with the last lines of its log. Nothing is left running then.
            ConfigurationError: there is no vLLM to start.
        """
        await self._spawn()
        try:
            await self._answering()
        except BaseException:
            await self.stop()
            raise
        self._watch = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """End the engine and everything that it started. Idempotent, and bounded in time."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        await self._end()
        self.state = "stopped"

    async def _supervise(self) -> None:
        backoff_s = self._settings.engine_restart_backoff_s
        while True:
            started = time.monotonic()
            await self._until_broken()
            await self._end()
            if time.monotonic() - started >= STABLE_S:
                backoff_s = self._settings.engine_restart_backoff_s
            self.state = "backing_off"
            logger.warning("engine ended", extra={"restart_in_s": backoff_s, "url": self.url})
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
            self.restarts += 1
            try:
                await self._spawn()
                await self._answering()
            except (EngineUnavailable, OSError) as error:
                logger.error("engine did not start", extra={"error": str(error)})

    async def _spawn(self) -> None:
        command = self._make_command(self._port)
        self.state = "starting"
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        _rotate(self.log_path)
        with self.log_path.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *guarded(command.argv, grace_s=STOP_GRACE_S),
                stdin=asyncio.subprocess.PIPE,  # never written: its end is the guard's signal
                stdout=log,
                stderr=log,
                env={**environment_of_children(), **command.env},
                start_new_session=True,  # a Ctrl-C is for us: the engine ends after its requests
            )
        logger.info("engine starting", extra={"url": self.url, "log": str(self.log_path)})

    async def _answering(self) -> None:
        """Wait until the engine answers; fail at once when it ends instead."""
        started = time.monotonic()
        client = EngineClient(self.url)
        try:
            async with asyncio.timeout(self._settings.engine_start_timeout_s):
                while not await client.healthy():
                    if self._has_ended():
                        raise self._broken("The engine ended while starting.")
                    await asyncio.sleep(START_POLL_S)
        except TimeoutError:
            await self._end()
            raise self._broken("The engine did not start in time.") from None
        finally:
            await client.close()
        self.state = "running"
        seconds = round(time.monotonic() - started, 1)
        logger.info("engine running", extra={"url": self.url, "seconds": seconds})

    async def _until_broken(self) -> None:
        """Until the process ends, stops listening, or does not answer for long.

        vLLM whose engine core has died closes its port, and may then wait for ever for a request
        that nobody will answer.
        """
        if self._process is None:
            return
        client = EngineClient(self.url)
        ended = asyncio.create_task(self._process.wait())
        answered = time.monotonic()
        try:
            while not ended.done() and time.monotonic() - answered < HANG_S:
                await asyncio.wait({ended}, timeout=WATCH_POLL_S)
                if ended.done():
                    return
                if await client.healthy():
                    answered = time.monotonic()
                elif await self._refuses():
                    return
        finally:
            ended.cancel()
            await client.close()

    async def _refuses(self) -> bool:
        """Whether nobody listens at the port; an engine that is only busy accepts."""
        try:
            async with asyncio.timeout(WATCH_POLL_S):
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except ConnectionRefusedError:
            return True
        except OSError:  # includes TimeoutError
            return False
        writer.close()
        return False

    def _has_ended(self) -> bool:
        return self._process is None or self._process.returncode is not None

    def _broken(self, message: str) -> EngineUnavailable:
        return EngineUnavailable(f"{message} {self.log_path} ends with:\n{self._tail()}")

    def _tail(self) -> str:
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - TAIL_BYTES))
                return log.read().decode(errors="replace").strip()
        except OSError:
            return "(no log)"

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_GRACE_S + 5):
                await process.wait()
        except TimeoutError:  # the guard hangs
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if process.returncode is not None and process.returncode < 0:  # the guard was killed
            end_session(process.pid)
        self._process = None


def _vllm_command(settings: Settings, number: int, port: int) -> EngineCommand:
    return engine_command(settings, port=port, number=number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _rotate(log: Path) -> None:
    """engine.log becomes engine.log.1, and so on; the oldest is overwritten."""
    for number in range(NUM_OLD_LOGS, 0, -1):
        newer = log if number == 1 else log.with_name(f"{log.name}.{number - 1}")
        if newer.exists():
            newer.replace(log.with_name(f"{log.name}.{number}"))
