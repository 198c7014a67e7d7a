"""How well the gate tells good updates from harmful ones: real candidates of known effect.

    python -m benchmarks.gate [--most 64]

Candidates are weights that other arms left on their way (benchmarks.estimators keeps them), and
weights that are made here to be bad: random and inverted rewards, a learning rate at which a
majority collapses, another tenant's adapter, noise in the file. What each does to held-out pass@1
is measured on many samples; the gate sees only its own probe of 32 prompts, without labels and with
the truth of all 32. Harmful: held-out pass@1 falls by more than 3 points. Good: it rises by more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import exp, fsum
from pathlib import Path
from random import Random
from typing import Any

from adapters.batch import LearnerConfig, Open, Opened, Score, Scored, TrainSample
from adapters.gate import decide
from adapters.report import EvaluationReport, labels_of, report
from benchmarks.arms import (
    ARMS,
    LEARNING_RATE,
    PROMPTS_PER_STEP,
    SAMPLES,
    Arm,
    inverted,
    random_rewards,
    voting,
)
from benchmarks.estimators import CURVE_EVERY, FOLDER, traffic
from benchmarks.gate_report import publish
from benchmarks.loop import Group, Lane, Learning
from benchmarks.probing import POLICY, probe_samples
from benchmarks.result import ROOT
from benchmarks.spoiled import with_noise
from benchmarks.workbench import Workbench, workbench
from demo.questions import ADDITION, Question, additions
from server.adaptation.sampler import Policy

CANDIDATES = ROOT / "var" / "bench" / "gate"
NUM_TRUE, TRUE_SAMPLES = 96, 16  # for the true effect
KL_SAMPLES = 64
BATCH = PROMPTS_PER_STEP * SAMPLES
HOT = LearnerConfig(learning_rate=8 * LEARNING_RATE)
BAD_ARMS: Sequence[Arm] = (
    Arm("gate_random", random_rewards, rollouts=8 * BATCH),
    Arm("gate_inverted", inverted, rollouts=6 * BATCH),
    Arm("gate_hot", voting("majority"), rollouts=10 * BATCH, learner=HOT),
    Arm("gate_hot_random", random_rewards, rollouts=4 * BATCH, learner=HOT),
)
NOISES = (0.3, 1.0, 3.0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Weights on disk, and how they came about."""

    name: str
    origin: str
    path: Path


def kept(most: int) -> list[Candidate]:
    """Weights that the estimator benchmark left, a fair share of each arm and of each age."""
    found: list[Candidate] = []
    for folder in sorted(FOLDER.glob("*-*/s*")):
        arm, _, seed = folder.parent.name.rpartition("-")
        step = int(folder.name[1:])
        if arm in ARMS and step % CURVE_EVERY == 0:
            found.append(Candidate(f"{arm}-{seed}-s{step}", arm, folder))
    Random(7).shuffle(found)
    by_arm: dict[str, list[Candidate]] = {}
    for candidate in found:
        by_arm.setdefault(candidate.origin, []).append(candidate)
    ordered = [group[i] for i in range(len(found)) for group in by_arm.values() if i < len(group)]
    return ordered[:most]


async def made_bad(bench: Workbench) -> AsyncGenerator[Candidate]:
    """Weights that no good arm would leave."""
    for arm in BAD_ARMS:
        for seed in (1, 2):
            lane = Lane(bench, bench.trainers[0], f"{arm.name}-{seed}", CANDIDATES / arm.name)
            learning = Learning(lane, arm, traffic(ADDITION, seed), seed)
            await learning.begin()
            while learning.num_rollouts < arm.rollouts:
                await learning.advance()
                if learning.step % 2 == 0:
                    folder = CANDIDATES / f"{arm.name}-{seed}-s{learning.step}"
                    shutil.rmtree(folder, ignore_errors=True)
                    shutil.copytree(learning.policy.path, folder)
                    yield Candidate(folder.name, arm.name, folder)
    for number, source in enumerate(sorted(FOLDER.glob("default-*/s20"))[:2]):
        for noise in NOISES:
            folder = CANDIDATES / f"noise-{noise}-{number}"
            await asyncio.to_thread(with_noise, source, folder, noise)
            yield Candidate(folder.name, "corrupted file", folder)


class Court:
    """Puts candidates before the gate, and finds out what they really do."""

    def __init__(self, bench: Workbench) -> None:
        self._lane = Lane(bench, bench.trainers[0], "gate", CANDIDATES)
        self._probe = additions(7000, POLICY.probe_prompts)
        self._fresh = additions(5000, NUM_TRUE, held_out=True)
        self._truths = {question.text: question.answer for question in self._probe}
        self._arm = ARMS["default"]

    async def open(self) -> None:
        """Measure the incumbent."""
        start = self._lane.bench.start
        groups = await self._groups(start)
        probe = probe_samples(self._lane, groups)
        self._labels = labels_of(probe, 8)
        self._incumbent = report("v0", probe, self._labels, kl=None, truths=self._truths)
        self._before = await self._pass_at_1(start)

    async def try_candidate(self, candidate: Candidate) -> dict[str, Any]:
        """The verdicts without and with labels, and the true change of held-out pass@1."""
        policy = Policy(f"gate-{candidate.name}", str(candidate.path))
        await self._lane.bench.sampler.load(policy)
        groups = await self._groups(policy)
        kl = await self._kl(candidate, groups)
        samples = probe_samples(self._lane, groups)
        made = report(candidate.name, samples, self._labels, kl=kl, truths=self._truths)
        blind = decide(_blinded(made), _blinded(self._incumbent), POLICY)
        labelled = decide(made, self._incumbent, POLICY)
        after = await self._pass_at_1(policy)
        await self._lane.bench.sampler.unload(lambda name: name == policy.engine_name)
        return {
            "name": candidate.name,
            "origin": candidate.origin,
            "effect": round(after - self._before, 4),
            "without_labels": {"promote": blind.promote, "reasons": list(blind.reasons)},
            "with_labels": {"promote": labelled.promote, "reasons": list(labelled.reasons)},
            "report": _rounded(asdict(_blinded(made))),
        }

    @property
    def incumbent(self) -> dict[str, Any]:
        """Its report."""
        return _rounded(asdict(_blinded(self._incumbent)))

    async def _groups(self, policy: Policy) -> list[Group]:
        return await self._lane.sample(
            policy, self._arm, self._probe, POLICY.samples_per_prompt, "probe"
        )

    async def _pass_at_1(self, policy: Policy) -> float:
        questions: Sequence[Question] = self._fresh
        found = await self._lane.answers(policy, self._arm, questions, TRUE_SAMPLES, "truth")
        return fsum(answered.mean for answered in found) / len(found)

    async def _kl(self, candidate: Candidate, groups: Sequence[Group]) -> float:
        """k3 of KL(candidate || base) on the candidate's own samples, nats a token."""
        drawn = [sample for group in groups for sample in group.samples[:2]][:KL_SAMPLES]
        samples = [
            TrainSample(ids, done.token_ids, done.logprobs, [0.0] * len(done.token_ids))
            for _, ids, done in drawn
        ]
        trainer = self._lane.trainer
        await trainer.ask(Open(self._arm.config, str(candidate.path)), Opened)
        own = (await trainer.ask(Score(samples, "adapter"), Scored)).logprobs
        base = (await trainer.ask(Score(samples, "base"), Scored)).logprobs
        ratios = [
            min(b - a, 20.0)
            for ours, theirs in zip(own, base, strict=True)
            for a, b in zip(ours, theirs, strict=True)
        ]
        return fsum(exp(ratio) - ratio - 1 for ratio in ratios) / len(ratios)


def _blinded(made: EvaluationReport) -> EvaluationReport:
    return replace(made, accuracy=None, accuracies={})


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}


async def run(most: int) -> None:
    """Try all candidates that were not tried yet, and report."""
    CANDIDATES.mkdir(parents=True, exist_ok=True)
    tried = CANDIDATES / "tried.jsonl"
    done = [json.loads(line) for line in tried.read_text().splitlines()] if tried.exists() else []
    names = {found["name"] for found in done}
    async with workbench(ROOT / "var" / "bench", num_trainers=1) as bench:
        court = Court(bench)
        await court.open()

        async def put(candidate: Candidate) -> None:
            if candidate.name in names:
                return
            found = await court.try_candidate(candidate)
            done.append(found)
            with tried.open("a") as file:
                file.write(json.dumps(found) + "\n")
            verdicts = found["without_labels"]["promote"], found["with_labels"]["promote"]
            print(candidate.name, f"{found['effect']:+.3f}", *verdicts, flush=True)

        for candidate in kept(most):
            await put(candidate)
        async for candidate in made_bad(bench):
            await put(candidate)
        publish(done, court.incumbent)


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=48, help="of the kept weights")
    asyncio.run(run(parser.parse_args().most))


if __name__ == "__main__":
    main()
