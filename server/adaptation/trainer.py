"""The trainer process: started when first needed, kept between cycles, restarted when it dies.

It speaks adapters.batch, a JSON line each way. It runs at low priority and
ends with us: the kernel kills it when we die, and its input closes when we stop.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import structlog

from adapters import batch
from server.adaptation.tools import Reply
from server.config import Settings, environment_of_children
from server.engine.launch import base_dtype
from server.errors import TrainerFailed

logger = structlog.get_logger(__name__)

MAX_LINE = 256 * 2**20  # bytes of one reply
TAIL_LINES = 20  # of its standard error, kept for the error message
STOP_S = 5.0  # until it is killed


def trainer_command(settings: Settings) -> list[str]:
    """How the trainer is started."""
    return [
        sys.executable,
        *("-m", "adapters.training", "serve"),
        *("--model", settings.model),
        *("--threads", str(settings.trainer_threads)),
        *("--device", settings.trainer_device),
        *("--dtype", base_dtype(settings)),
    ]


class TrainerProcess:
    """Asks the trainer, one request at a time. The constructor starts nothing."""

    def __init__(
        self, command: Sequence[str], *, threads: int, nice: int, timeout_s: float
    ) -> None:
        self._command = list(command)
        self._threads = threads
        self._nice = nice
        self._timeout_s = timeout_s
        self._process: Process | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._reading_errors: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder[batch.Reply](batch.Reply)

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    async def ask(self, request: batch.Request, expect: type[Reply]) -> Reply:
        """Send one request and wait for its reply, starting the process if need be.

        Raises:
            TrainerFailed: it died (with the end of its standard error), was too slow, or refused.
        """
        async with self._turn:
            try:
                process = await self._running()
                async with asyncio.timeout(self._timeout_s):
                    reply = await self._exchange(process, request)
            except TimeoutError:
                await self._kill()
                raise TrainerFailed(
                    f"no reply to {type(request).__name__} in {self._timeout_s:.0f} s"
                ) from None
            except BaseException:  # also a cancellation: a late reply would answer the next request
                await self._kill()
                raise
        if isinstance(reply, batch.Failed):
            raise TrainerFailed(f"{type(request).__name__}: {reply.kind}: {reply.message}")
        if not isinstance(reply, expect):
            raise TrainerFailed(f"{type(request).__name__} was answered {type(reply).__name__}")
        return reply

    async def stop(self) -> None:
        """Close its input, and wait until it has ended."""
        process = self._process
        if process is not None and process.stdin is not None and process.returncode is None:
            process.stdin.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await process.wait()
        await self._kill()

    async def _running(self) -> Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        await self._kill()
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=MAX_LINE,
            env=environment_of_children() | {"OMP_NUM_THREADS": str(self._threads)},
        )
        self._process = process
        with suppress(ProcessLookupError):  # threads that it starts later inherit it
            os.setpriority(os.PRIO_PROCESS, process.pid, self._nice)
        self._tail.clear()
        self._reading_errors = asyncio.create_task(self._read_errors(process))
        async with asyncio.timeout(self._timeout_s):
            ready = await self._read(process)
        if not isinstance(ready, batch.Ready):
            message = ready.message if isinstance(ready, batch.Failed) else repr(ready)
            raise TrainerFailed(f"the trainer did not start: {message}")
        logger.info("trainer ready", pid=process.pid, load_s=ready.load_s)
        return process

    async def _exchange(self, process: Process, request: batch.Request) -> batch.Reply:
        assert process.stdin is not None
        try:
            process.stdin.write(self._encoder.encode(request) + b"\n")
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise TrainerFailed(await self._last_words(process)) from None
        return await self._read(process)

    async def _read(self, process: Process) -> batch.Reply:
        assert process.stdout is not None
        try:
            line = await process.stdout.readline()
        except ValueError:
            raise TrainerFailed(f"a reply of more than {MAX_LINE} bytes") from None
        if not line.endswith(b"\n"):
            raise TrainerFailed(await self._last_words(process))
        try:
            return self._decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise TrainerFailed(f"a reply that makes no sense: {error}") from None

    async def _last_words(self, process: Process) -> str:
        """How it ended; its pipes are closed, so it has ended, or is about to."""
        status = "unknown"
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                status = str(await process.wait())
                if self._reading_errors is not None:
                    await self._reading_errors
        return f"the trainer ended with status {status}: " + "\n".join(self._tail)

    async def _read_errors(self, process: Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            text = line.decode(errors="replace").rstrip()
            self._tail.append(text)
            logger.debug("trainer", line=text)

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
        if self._reading_errors is not None:
            await self._reading_errors
            self._reading_errors = None
