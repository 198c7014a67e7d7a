"""One step: from judged groups to new weights on disk, loaded into the engine, and a stored row."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter

from adapters.batch import TrainSample
from server.adaptation.judging import UNANIMOUS, JudgedGroup
from server.adaptation.learner import Checkpoint
from server.adaptation.measures import group_metrics, update_metrics
from server.adaptation.run import Progress, Run, advance, cycle_of_step
from server.adaptation.sampling import Sampled
from server.adaptation.tracing import entered
from server.db import steps
from server.db.steps import StepRecord


async def learn(
    run: Run, progress: Progress, sampled: Sampled, groups: Sequence[JudgedGroup]
) -> Progress:
    """Update the weights, write them to disk, load them under a name of their own, store the step.

    A step in which no group has anything to teach is stored too, and changes no weights.

    Raises:
        TrainerFailed: the trainer failed again and again.
        LeaseLost: another worker has taken the cycle up; nothing is stored.
    """
    entered("train")
    metrics = group_metrics(groups, sampled.seconds) | {"staleness": float(sampled.staleness)}
    samples = [sample for group in groups for sample in group.train_samples()]
    made: Checkpoint | None = None
    if samples:
        made, more = await _update(run, progress, samples)
        metrics |= more
    record = StepRecord(
        step=progress.steps_done + 1,
        engine_name=made and made.policy.engine_name,
        adapter_dir=made and made.adapter_dir,
        state_dir=made and made.state_dir,
        metrics=metrics,
        groups=[group.record() for group in groups],
    )
    async with run.tools.database.transaction() as session:
        await steps.write_step(session, run.lease, record, now=run.tools.clock.now())
    if made is not None:  # nobody goes on from an older step
        remove, lease = run.tools.store.remove_states, run.lease
        await asyncio.to_thread(remove, lease.tenant_id, lease.cycle_id, before=made.step)
    after = advance(progress, made, metrics, run.settings.learning.stop)
    # The weights before this update stay: a batch that is sampled ahead comes from them.
    superseded = {progress.before, made or progress.before} - {after.before, after.checkpoint}
    for checkpoint in superseded:
        await _forget(run, checkpoint)
    return after


async def _update(
    run: Run, progress: Progress, samples: Sequence[TrainSample]
) -> tuple[Checkpoint, dict[str, float]]:
    step = progress.steps_done + 1
    dirs = run.step_dirs(step)
    made = Checkpoint(step, run.step_policy(step), str(dirs.adapter), str(dirs.state))
    started = perf_counter()
    stepped = await run.learner.update(progress.checkpoint, samples, made)
    update_s = perf_counter() - started
    load_ms = await run.tools.sampler.load(made.policy)
    return made, update_metrics(stepped, update_s=update_s, load_ms=load_ms)


async def _forget(run: Run, checkpoint: Checkpoint) -> None:
    """Give the engine its slot back; the incumbent's is not ours to give."""
    superseded = checkpoint.policy.engine_name
    if cycle_of_step(superseded) == run.lease.cycle_id:
        await run.tools.sampler.forget(superseded)


async def no_signal(run: Run, progress: Progress) -> tuple[str, ...]:
    """Why not one step of the cycle has weights that could go live."""
    if progress.stop is not None:
        return progress.remarks
    async with run.tools.database.transaction(write=False) as session:
        counts = await steps.count_reasons(session, run.lease.cycle_id)
    total = sum(counts.values())
    labelled = counts.get(UNANIMOUS, 0)
    first = f"no_signal: {labelled} of {total} groups had a label the views agree on"
    return (first, *(f"{code}: {n} of {total} groups" for code, n in sorted(counts.items())))
