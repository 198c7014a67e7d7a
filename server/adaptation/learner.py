"""One cycle's hold on the trainer: opens what is to be trained, and redoes what a death undid."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from adapters.batch import (
    Average,
    Close,
    Closed,
    LearnerConfig,
    Open,
    Opened,
    Request,
    Save,
    Saved,
    Score,
    Scored,
    Step,
    Stepped,
    TrainSample,
)
from server.adaptation.sampler import Policy
from server.adaptation.tools import Reply, Trainer
from server.errors import TrainerFailed

logger = structlog.get_logger(__name__)

MAX_REDOES = 3  # in one cycle and claim
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights that a cycle came to: which step made them, and where adapter and optimizer lie. The
    optimizer's state is deleted when the next step is stored.
    """

    step: int  # 0: the incumbent's
    policy: Policy
    adapter_dir: str | None  # None: version 0, a fresh adapter
    state_dir: str | None


@dataclass(frozen=True, slots=True)
class Scores:
    """Per-token log-probabilities of the same completions, under the adapter and without it."""

    adapter: list[list[float]]
    base: list[list[float]]


class Learner:
    """Trains one adapter through the trainer; knows what the trainer has open."""

    def __init__(self, trainer: Trainer, config: LearnerConfig) -> None:
        self._trainer = trainer
        self._config = config
        self._opened: Checkpoint | None = None
        self._redone = 0

    async def update(
        self, checkpoint: Checkpoint, samples: Sequence[TrainSample], made: Checkpoint
    ) -> Stepped:
        """One update of the checkpoint's weights; on disk at `made` when this returns.

        Raises:
            TrainerFailed: the trainer failed `MAX_REDOES` times and once more.
        """

        async def attempt() -> Stepped:
            await self._open(checkpoint)
            self._opened = None  # between two checkpoints, until the weights are saved
            stepped = await self._ask(Step(list(samples)), Stepped)
            await self._ask(Save(str(made.adapter_dir), made.state_dir), Saved)
            self._opened = made
            return stepped

        return await self._redoing(attempt)

    async def average(self, checkpoints: Sequence[Checkpoint], made: Checkpoint) -> None:
        """Write the mean of the checkpoints' weights to `made`; its directory is there when this
        returns.

        Raises:
            TrainerFailed: as for `update`.
        """
        folders = [str(checkpoint.adapter_dir) for checkpoint in checkpoints]
        request = Average(self._config, folders, str(made.adapter_dir))

        async def attempt() -> Saved:
            return await self._ask(request, Saved)

        await self._redoing(attempt)

    async def score(self, checkpoint: Checkpoint, samples: Sequence[TrainSample]) -> Scores:
        """What the checkpoint's weights, and the base model, think of completions.

        Raises:
            TrainerFailed: as for `update`.
        """

        async def attempt() -> Scores:
            if self._opened != checkpoint:  # without the optimizer, whose state may be gone
                await self._open(replace(checkpoint, state_dir=None))
            return Scores(
                adapter=await self._score(samples, "adapter"),
                base=await self._score(samples, "base"),
            )

        return await self._redoing(attempt)

    async def close(self) -> None:
        """Let the trainer forget the adapter; one that is dead has forgotten it."""
        if self._opened is not None:
            self._opened = None
            try:
                await self._trainer.ask(Close(), Closed)
            except TrainerFailed as error:
                logger.warning("trainer failed to close", error=error.message)

    async def _open(self, checkpoint: Checkpoint) -> None:
        if self._opened != checkpoint:
            request = Open(self._config, checkpoint.adapter_dir, checkpoint.state_dir)
            await self._ask(request, Opened)
            self._opened = checkpoint

    async def _ask(self, request: Request, expect: type[Reply]) -> Reply:
        # A request that fails or is cancelled may end the trainer, and with it what it has open.
        opened, self._opened = self._opened, None
        reply = await self._trainer.ask(request, expect)
        self._opened = opened
        return reply

    async def _score(self, samples: Sequence[TrainSample], policy: str) -> list[list[float]]:
        request = Score(list(samples), policy, self._config.temperature)
        return (await self._ask(request, Scored)).logprobs

    async def _redoing(self, attempt: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await attempt()
            except TrainerFailed as error:
                self._redone += 1
                if self._redone > MAX_REDOES:
                    raise
                logger.warning("trainer failed, redoing", error=error.message, times=self._redone)
