"""A real engine and real trainers, without a server around them, for benchmarks of learning."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.answers import Equivalence
from server.adaptation.sampler import Policy, Sampler
from server.adaptation.trainer import TrainerProcess, trainer_command
from server.config import Settings
from server.engine.identity import ensure_identity
from server.engine.pool import EnginePool
from server.engine.supervisor import EngineSupervisor

PATIENCE_S = 120.0
TRAINER_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Workbench:
    """`trainers` may be used at the same time, each by one run."""

    sampler: Sampler
    trainers: tuple[TrainerProcess, ...]
    judge: Equivalence
    start: Policy  # version 0


def make_trainer(settings: Settings) -> TrainerProcess:
    """As the worker makes it, but for its niceness."""
    threads = settings.trainer_threads
    return TrainerProcess(
        trainer_command(settings), threads=threads, nice=0, timeout_s=TRAINER_TIMEOUT_S
    )


@asynccontextmanager
async def workbench(
    data_dir: Path,
    *,
    num_trainers: int,
    trainer_threads: int = 1,
    make: Callable[[Settings], TrainerProcess] = make_trainer,
) -> AsyncGenerator[Workbench]:
    """Start everything on the bundled model, and end it with the block."""
    settings = Settings(
        data_dir=data_dir,
        engine_max_loras=8,
        engine_max_cpu_loras=64,
        trainer_threads=trainer_threads,
    )
    async with AsyncExitStack() as stack:
        judge = stack.enter_context(Equivalence())
        engine = EngineSupervisor(settings)
        identity = await ensure_identity(settings)
        await engine.start()
        stack.push_async_callback(engine.stop)
        pool = EnginePool([engine.url], poll_s=1.0)
        await pool.start()
        stack.push_async_callback(pool.stop)
        sampler = Sampler(pool, patience_s=PATIENCE_S)
        trainers = [make(settings) for _ in range(num_trainers)]
        for trainer in trainers:
            stack.push_async_callback(trainer.stop)
        start = Policy("identity", str(identity))
        await sampler.load(start)
        yield Workbench(sampler, tuple(trainers), judge, start)
