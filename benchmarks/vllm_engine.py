"""A real vLLM on the bundled model as a server of a benchmark, with version 0 loaded.

`python -m benchmarks.vllm_engine DATA_DIR` prints the engine's URL, and the folder of version 0.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from server.config import Settings
from server.engine.client import EngineClient
from server.engine.identity import ensure_identity
from server.engine.supervisor import EngineSupervisor

IDENTITY = "identity"  # what version 0 is called in the engine


async def run(settings: Settings) -> None:
    """Serve until terminated."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    identity = await ensure_identity(settings)
    engine = EngineSupervisor(settings)
    await engine.start()
    client = EngineClient(engine.url)
    try:
        await client.load_adapter(IDENTITY, str(identity))
        print(f"{engine.url} {identity}", flush=True)
        await stopped.wait()
    finally:
        await client.close()
        await engine.stop()


if __name__ == "__main__":
    asyncio.run(run(Settings(data_dir=Path(sys.argv[1]))))
