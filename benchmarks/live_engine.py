"""A vLLM of a benchmark: started as the server starts it, with or without this project's plugin,
and the processor time of its worker.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from server.config import Settings
from server.engine.launch import EngineCommand, engine_command
from server.engine.supervisor import EngineSupervisor

PLUGIN_SAYS = "LoRA on CPU: one pair of matrix products per adapter"
WORKER = "VLLM::Worker"  # what the process that runs the model calls itself
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class LiveEngine:
    """A running engine."""

    url: str
    session: int  # of all its processes

    def cpu_s(self) -> float:
        """Processor seconds of the process that runs the model, so far; neither HTTP nor the
        scheduler is in it.
        """
        return sum(_cpu_s(folder, self.session) for folder in Path("/proc").glob("[0-9]*"))


@asynccontextmanager
async def live_engine(settings: Settings, *, plugin: bool) -> AsyncGenerator[LiveEngine]:
    """Run an engine for the block.

    Raises:
        RuntimeError: its log does not say about the plugin what it should.
    """

    def command(port: int) -> EngineCommand:
        made = engine_command(settings, port=port)
        return made if plugin else replace(made, env={**made.env, "VLLM_PLUGINS": ""})

    supervisor = EngineSupervisor(settings, make_command=command)
    await supervisor.start()
    try:
        if (PLUGIN_SAYS in supervisor.log_path.read_text(errors="replace")) != plugin:
            raise RuntimeError(f"the plugin is not {'on' if plugin else 'off'}")
        assert supervisor.pid is not None
        yield LiveEngine(supervisor.url, supervisor.pid)
    finally:
        await supervisor.stop()


def _cpu_s(folder: Path, session: int) -> float:
    with suppress(OSError):  # it has ended meanwhile
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes().decode(errors="replace")
        if int(fields[3]) == session and command.startswith(WORKER):
            return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return 0.0
