"""What the steps of a cycle come to: the weights that are evaluated, and that go live if they are
better.
"""

from __future__ import annotations

import structlog

from server.adaptation.learner import Checkpoint
from server.adaptation.run import Progress, Run
from server.adaptation.stopping import plateau

logger = structlog.get_logger(__name__)


async def settle(run: Run, progress: Progress) -> Checkpoint:
    """The mean of the weights that learning has reached and of those as good as the best, where the
    tenant has it so, there are several, and learning did no harm; else those reached. A function of
    the stored steps: after a crash the next claim makes the same weights, under a name of its own.

    Raises:
        TrainerFailed: the trainer failed again and again.
        EngineUnavailable: the engine stayed away.
    """
    reached = progress.checkpoint
    chosen = _as_good_as_the_best(progress) if run.settings.learning.average else ()
    if len(chosen) < 2:
        return reached
    step = progress.steps_done + 1  # there will be no such step
    made = Checkpoint(step, run.step_policy(step), str(run.step_dirs(step).adapter), None)
    await run.learner.average(chosen, made)
    await run.tools.sampler.load(made.policy)
    await run.tools.sampler.forget(reached.policy.engine_name)
    logger.info(
        "averaged", cycle_id=run.lease.cycle_id, steps=[checkpoint.step for checkpoint in chosen]
    )
    return made


def _as_good_as_the_best(progress: Progress) -> tuple[Checkpoint, ...]:
    """In the order of their steps; none where learning did harm."""
    if progress.stop is not None and progress.stop.is_harm:
        return ()
    good = plateau(progress.measured, progress.checkpoint.step)
    by_step = {made.step: made for made in (*progress.path, progress.checkpoint)}
    return tuple(by_step[step] for step in sorted(good))
