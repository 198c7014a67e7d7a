"""Our side of the learner's benchmark: real engine, real trainer process, and a clock.

    python -m benchmarks.learner_ours update --batches FOLDER --out FILE
    python -m benchmarks.learner_ours learn --arm majority --steps N --seed S --out FILE

`update` trains on the batches that TRL has sampled and written; `learn` is the whole loop. Events
are those of `benchmarks.peers.trl.train`: one JSON line each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from msgspec.structs import replace as replace_config

from adapters.batch import (
    LearnerConfig,
    Open,
    Opened,
    Request,
    Score,
    Scored,
    Step,
    Stepped,
    TrainSample,
)
from adapters.quality import Answered
from benchmarks.arms import ARMS, LEARNING_RATE
from benchmarks.learner_memory import cpu_s, descendants_mib, helpers_mib, peak_mib, reset_peak
from benchmarks.loop import Lane, Learning
from benchmarks.workbench import TRAINER_TIMEOUT_S, workbench
from demo.questions import additions
from server.adaptation.sampler import Policy
from server.adaptation.tools import Reply
from server.adaptation.trainer import TrainerProcess, trainer_command
from server.config import Settings

CONFIG = LearnerConfig(learning_rate=LEARNING_RATE)
SAMPLES = 32
TRAFFIC = 64
LOOK_S = 0.1  # between two looks at what helpers have in memory


class Helpers:
    """The most that a trainer's helpers have had in memory for themselves, looked at as they work:
    they end with the update.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak_mib = 0.0

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.peak_mib = max(self.peak_mib, helpers_mib(self._pid))


class MeteredTrainer(TrainerProcess):
    """Knows what the last update cost."""

    last: dict[str, Any]

    async def ask(self, request: Request, expect: type[Reply]) -> Reply:
        """As always; an update is measured, the pipes and the trainer's helpers included."""
        if not isinstance(request, Step):
            return await super().ask(request, expect)
        pid = self.pid
        assert pid is not None
        reset_peak(pid)
        helpers = Helpers(pid)
        watching = asyncio.create_task(helpers.watch())
        cpu, started = cpu_s(pid), perf_counter()
        try:
            reply = await super().ask(request, expect)
            seconds = perf_counter() - started
        finally:
            watching.cancel()
        self.last = {
            "update_s": seconds,
            "update_cpu_s": cpu_s(pid) - cpu,
            "update_mib": peak_mib(pid) + helpers.peak_mib,
            "num_tokens": sum(len(sample.completion_ids) for sample in request.samples),
            "num_samples": len(request.samples),
        }
        return reply


def make_trainer(settings: Settings) -> MeteredTrainer:
    """With as many threads as the settings say."""
    threads = settings.trainer_threads
    return MeteredTrainer(
        trainer_command(settings), threads=threads, nice=0, timeout_s=TRAINER_TIMEOUT_S
    )


class Events:
    """A file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")

    def write(self, event: str, **fields: Any) -> None:
        """One more line."""
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"event": event, **fields}) + "\n")


async def update(arguments: argparse.Namespace) -> None:
    """Updates of a fresh adapter on the batches of a folder, in the order of their numbers."""
    started, events = perf_counter(), Events(arguments.out)
    trainer = make_trainer(Settings(trainer_threads=arguments.threads))
    try:
        await trainer.ask(Open(CONFIG), Opened)
        events.write("ready", seconds=perf_counter() - started)
        paths = sorted(arguments.batches.glob("*.json"), key=lambda path: int(path.stem))
        for number, path in enumerate(paths, start=1):
            samples = await _scored(trainer, _read_batch(path))
            await trainer.ask(Step(samples), Stepped)
            events.write("step", step=number, **trainer.last)
        events.write("done")
    finally:
        await trainer.stop()


async def _scored(trainer: TrainerProcess, plain: list[TrainSample]) -> list[TrainSample]:
    """With log-probabilities as if our engine had sampled them now."""
    scored = await trainer.ask(Score(plain), Scored)
    return [
        TrainSample(sample.prompt_ids, sample.completion_ids, logprobs, sample.advantages)
        for sample, logprobs in zip(plain, scored.logprobs, strict=True)
    ]


def _read_batch(path: Path) -> list[TrainSample]:
    """Those of TRL's samples that teach."""
    return [
        TrainSample(
            prompt_ids=row["prompt_ids"],
            completion_ids=row["completion_ids"],
            inference_logprobs=[],
            advantages=[row["advantage"]] * len(row["completion_ids"]),
        )
        for row in json.loads(path.read_text(encoding="utf-8"))
        if row["advantage"] and row["completion_ids"]
    ]


async def learn(arguments: argparse.Namespace) -> None:
    """TTRL from the untouched model until the target, or for all steps."""
    started, events = perf_counter(), Events(arguments.out)
    arm = ARMS[arguments.arm]
    if arm.name == "majority":  # TRL's groups; the default has a size of its own
        arm = replace(arm, samples=SAMPLES)
    learner = replace_config(arm.config, minibatches=arguments.updates)
    arm = replace(arm, ahead=arguments.ahead, learner=learner)
    folder = arguments.out.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    async with workbench(
        folder,
        num_trainers=1,
        trainer_threads=arguments.threads,
        make=make_trainer,
    ) as bench:
        lane = Lane(bench, bench.trainers[0], f"{arm.name}-{arguments.seed}", folder / "adapters")
        run = Learning(lane, arm, additions(arguments.seed, TRAFFIC), arguments.seed)
        await run.begin()
        events.write("ready", seconds=perf_counter() - started)
        await Course(arguments, events, lane, run).go()
        events.write("done", train_s=run.seconds, all_processes_mib=descendants_mib(os.getpid()))
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a run stands after a step: its weights, and the seconds that they took."""

    step: int
    policy: Policy
    train_s: float


@dataclass(frozen=True, slots=True)
class Course:
    """The steps of one run, and the evaluations between them."""

    arguments: argparse.Namespace
    events: Events
    lane: Lane
    run: Learning

    async def go(self) -> None:
        """Until the target is reached, or for all steps. With a batch ahead the evaluations come
        after all steps: between two of them, off the clock, the batch ahead would be for nothing.
        """
        every, is_ahead = self.arguments.evaluate_every, self.arguments.ahead
        later: list[_Standing] = []
        if every:
            await self._reached(self._standing(0))
        for step in range(1, self.arguments.steps + 1):
            await self._step(step)
            if not every or step % every:
                continue
            if is_ahead:
                later.append(self._standing(step))
            elif await self._reached(self._standing(step)):
                break
        await self.run.end()
        for standing in later:
            if await self._reached(standing):
                break

    def _standing(self, step: int) -> _Standing:
        return _Standing(step, self.run.policy, self.run.seconds)

    async def _step(self, step: int) -> None:
        trainer = self.lane.trainer
        assert isinstance(trainer, MeteredTrainer)
        trainer.last = {"update_s": 0.0, "num_tokens": 0}  # where no group has variance
        before = self.run.seconds
        metrics = await self.run.advance()
        seconds = self.run.seconds - before
        self.events.write(
            "step",
            step=step,
            seconds=seconds,
            sampling_s=seconds - trainer.last["update_s"],
            train_s=self.run.seconds,
            **trainer.last,
            **metrics,
        )

    async def _reached(self, standing: _Standing) -> bool:
        started, asked = perf_counter(), self.arguments
        answers = await self.lane.answers(
            standing.policy,
            ARMS["majority"],
            additions(asked.seed, asked.held_out, held_out=True),
            asked.held_out_samples,
            f"held out {standing.step}",
        )
        share = _pass_at_1(answers)
        seconds = perf_counter() - started
        self.events.write(
            "evaluated",
            step=standing.step,
            pass_at_1=share,
            train_s=standing.train_s,
            seconds=seconds,
        )
        return share >= asked.target


def _pass_at_1(answers: Sequence[Answered]) -> float:
    shares = [sum(a == one.truth for a in one.answers) / len(one.answers) for one in answers]
    return sum(shares) / len(shares)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learner_ours")
    modes = parser.add_subparsers(dest="mode", required=True)
    updating, learning = modes.add_parser("update"), modes.add_parser("learn")
    for mode in (updating, learning):
        mode.add_argument("--out", type=lambda text: Path(text).resolve(), required=True)
        mode.add_argument("--threads", type=int, default=2, help="of the trainer")
    updating.add_argument("--batches", type=Path, required=True)
    learning.add_argument("--arm", choices=("majority", "default"), required=True)
    learning.add_argument("--ahead", action="store_true", help="sample a batch ahead")
    learning.add_argument("--updates", type=int, default=1, help="of a batch")
    learning.add_argument("--steps", type=int, required=True)
    learning.add_argument("--seed", type=int, required=True)
    learning.add_argument("--evaluate-every", type=int, default=0, help="steps; 0: never")
    learning.add_argument("--held-out", type=int, default=64, help="questions of an evaluation")
    learning.add_argument("--held-out-samples", type=int, default=16)
    learning.add_argument("--target", type=float, default=1.0, help="pass@1 that ends the run")
    return parser.parse_args()


def main() -> None:
    """Run what the command line says."""
    arguments = options()
    asyncio.run(update(arguments) if arguments.mode == "update" else learn(arguments))


if __name__ == "__main__":
    main()
