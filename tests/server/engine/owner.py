"""A server process to be killed in tests: supervises the stand-in, says so, and waits."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from server.config import Settings
from server.engine.launch import EngineCommand
from server.engine.supervisor import EngineSupervisor

STANDIN = Path(__file__).with_name("standin.py")


async def main() -> None:
    """Start, print the guard's pid, sleep for ever."""
    data_dir, pids = Path(sys.argv[1]), sys.argv[2]

    def command(port: int) -> EngineCommand:
        return EngineCommand((sys.executable, str(STANDIN), str(port), pids), {})

    supervisor = EngineSupervisor(Settings(data_dir=data_dir), make_command=command)
    await supervisor.start()
    sys.stdout.write(f"{supervisor.pid}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
