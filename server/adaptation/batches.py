"""The batches that a cycle learns from, one after the other.

Engine and trainer wait for each other all the time, unless the tenant has it that a batch is
sampled *ahead*, while the one before it is still learned from (`learning.ahead`). It then comes
from weights that have not learned from the batch before it: its staleness is one step, as in
asynchronous RLHF (arXiv 2410.18252). The loss weighs the difference out, by truncated importance
sampling against the engine's log-probabilities (adapters.training.loss). Never more than one batch
is ahead.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from server.adaptation.learner import Checkpoint
from server.adaptation.run import Progress, Run, follow_orders
from server.adaptation.sampling import Sampled, sample_step
from server.adaptation.selection import Selection, prompts_of_step

MAX_IDLE_STEPS = 3  # in a row without an update: the traffic has nothing more to teach


@dataclass(frozen=True, slots=True)
class _Sampling:
    """A batch on its way, and the weights that it comes from."""

    checkpoint: Checkpoint
    task: asyncio.Task[Sampled]


class Batches:
    """Of one claim of a cycle; to be closed at its end."""

    def __init__(self, run: Run, selection: Selection) -> None:
        self._run = run
        self._selection = selection
        self._sampling: _Sampling | None = None

    async def aclose(self) -> None:
        """End the sampling that nobody waits for any more."""
        if self._sampling is not None:
            self._sampling.task.cancel()
            await asyncio.gather(self._sampling.task, return_exceptions=True)
            self._sampling = None

    async def next(self, progress: Progress) -> Sampled | None:
        """The batch of the step after `progress`; None when training ends.

        Raises:
            CycleCancelled: somebody cancelled the cycle.
            EngineUnavailable: the engine stayed away.
        """
        await follow_orders(self._run)
        if progress.stop is not None or progress.idle_steps >= MAX_IDLE_STEPS:
            return None
        step = progress.steps_done + 1
        current = self._sampling = self._sampling or self._begin(step, progress.checkpoint)
        if current is None:
            return None
        sampled = await current.task
        ahead = self._run.settings.learning.ahead
        self._sampling = self._begin(step + 1, progress.checkpoint) if ahead else None
        return replace(sampled, staleness=int(current.checkpoint != progress.checkpoint))

    def _begin(self, step: int, checkpoint: Checkpoint) -> _Sampling | None:
        """Sample for a step from these weights; None: there is no such step."""
        learning = self._run.settings.learning
        if step > learning.steps:
            return None
        prompts = prompts_of_step(self._selection, step, learning.prompts_per_step)
        if prompts is None:
            return None
        told = self._selection.truths if learning.use_feedback else ()
        sampling = sample_step(self._run, step, checkpoint, prompts, told)
        return _Sampling(checkpoint, asyncio.create_task(sampling, name=f"step {step}"))
