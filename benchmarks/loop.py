"""TTRL on a page, on the product's own parts: sample groups from the engine, estimate, assign
credit, update, load the new weights, and now and then look how good they are.

It is the cycle without its database, leases and gate (server.adaptation.cycle), because the arms of
a benchmark include what no tenant can choose: true labels, random rewards, weights that get worse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

from adapters.answers import extract
from adapters.batch import Average, Open, Opened, Save, Saved, Step, Stepped, TrainSample
from adapters.credit import Credit, assign_credit
from adapters.estimators import Backed, Ballot, Estimate, Steady
from adapters.quality import Answered
from adapters.waves import Rule, find_stop
from benchmarks.arms import OPTIONS, PROMPTS_PER_STEP, STOP_CONFIDENCE, Arm
from benchmarks.workbench import Workbench
from demo.questions import Question
from server.adaptation.sampler import Draw, Policy, all_of
from server.adaptation.sampling import split, waves
from server.adaptation.trainer import TrainerProcess
from server.engine.client import Completion

MAX_TOKENS = 64
AT_ONCE = 24


@dataclass(frozen=True, slots=True)
class Group:
    """The samples of one question, each with its view and its prompt's token ids."""

    question: Question
    samples: tuple[tuple[int, list[int], Completion], ...]
    incumbent: tuple[tuple[int, list[int], Completion], ...] = ()  # they vote, and back the label

    @property
    def drawn(self) -> tuple[tuple[int, list[int], Completion], ...]:
        """All samples, the incumbent's last."""
        return (*self.samples, *self.incumbent)

    @property
    def num_tokens(self) -> int:
        """Sampled tokens."""
        return sum(len(completion.token_ids) for _, _, completion in self.drawn)


@dataclass(frozen=True, slots=True)
class Lane:
    """What one run works with. Names of weights start with `name`, files lie in `folder`."""

    bench: Workbench
    trainer: TrainerProcess
    name: str
    folder: Path

    async def sample(
        self, policy: Policy, arm: Arm, questions: Sequence[Question], n: int, occasion: str
    ) -> list[Group]:
        """`n` completions of each question, split over the arm's phrasings."""
        seats = asyncio.Semaphore(AT_ONCE)

        async def ask(
            view: int, chat: list[dict[str, str]], draw: Draw
        ) -> list[tuple[int, list[int], Completion]]:
            async with seats:
                ids = await self.bench.sampler.tokenize(chat)
                completions = await self.bench.sampler.sample(policy, ids, draw)
            return [(view, ids, completion) for completion in completions]

        async def group(question: Question) -> Group:
            if not n:
                return Group(question, ())
            chats = arm.phrasings(question)[:n]
            remaining = split(n, len(chats))
            made = Group(question, ())
            for wave in waves(n, len(chats), arm.wave):
                seeds = [self._seed(occasion, question.text, view) for view in range(len(chats))]
                draws = [
                    Draw(len(some), MAX_TOKENS, 1.0, seed + some.start, self.name)
                    for seed, some in zip(seeds, wave, strict=True)
                ]
                asked = zip(range(len(chats)), chats, draws, strict=True)
                found = await all_of(ask(view, chat, draw) for view, chat, draw in asked if draw.n)
                samples = tuple(sample for samples in found for sample in samples)
                made = Group(question, (*made.samples, *samples))
                remaining = [a - len(b) for a, b in zip(remaining, wave, strict=True)]
                if any(remaining) and await asyncio.to_thread(
                    self._has_enough, made, remaining, arm
                ):
                    break
            return made

        return await all_of(group(question) for question in questions)

    def _has_enough(self, group: Group, remaining: Sequence[int], arm: Arm) -> bool:
        """As the product's stop rule (server.adaptation.sampling.stop_rule)."""
        rule = Rule(
            confidence=STOP_CONFIDENCE,
            min_answers=OPTIONS.min_answers,
            min_samples=arm.rules.train_samples or arm.samples,
            by_view=len(remaining) > 1,
        )
        return find_stop(self.ballots(group), remaining, rule) is not None

    def _seed(self, *parts: object) -> int:
        text = repr((self.name, *parts)).encode()
        return int.from_bytes(sha256(text).digest()[:4], "big") >> 1

    def ballots(self, group: Group) -> list[Ballot]:
        """Blocking: answers are compared."""
        texts = [completion.text for _, _, completion in group.drawn]
        written = [extract(text, "math") for text in texts]
        classes = self.bench.judge.classes(written, "math")
        return [
            Ballot(
                answer=answer,
                written=wrote,
                view=view,
                masked=completion.finish_reason == "length",
                num_tokens=len(completion.token_ids),
                confidence=sum(completion.logprobs) / max(1, len(completion.logprobs)),
                rewarded=index < len(group.samples),
            )
            for index, (answer, wrote, (view, _, completion)) in enumerate(
                zip(classes, written, group.drawn, strict=True)
            )
        ]

    async def average(self, arm: Arm, steps: Sequence[int]) -> Policy:
        """The mean of the weights of these steps, which are still in the folder, loaded."""
        kept = [str(self.folder / f"s{step}") for step in steps]
        made = Policy(f"{self.name}-mean", str(self.folder / "mean"))
        await self.trainer.ask(Average(arm.config, kept, made.path), Saved)
        await self.bench.sampler.load(made)
        return made

    async def answers(
        self, policy: Policy, arm: Arm, questions: Sequence[Question], n: int, occasion: str
    ) -> list[Answered]:
        """What the weights answer to the questions as they are asked."""
        plain = Arm("plain", arm.estimating, kind=arm.kind)
        groups = await self.sample(policy, plain, questions, n, occasion)
        found = await asyncio.to_thread(lambda: [self.ballots(group) for group in groups])
        return [
            Answered(group.question.answer, tuple(ballot.vote for ballot in ballots))
            for group, ballots in zip(groups, found, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Stepping:
    """Where a run stands after a step."""

    step: int
    policy: Policy
    metrics: dict[str, Any]


class Learning:
    """One run of an arm, step by step."""

    def __init__(self, lane: Lane, arm: Arm, questions: Sequence[Question], seed: int) -> None:
        self._lane, self._arm, self._questions = lane, arm, tuple(questions)
        self._dice = Random(f"{arm.name}/{seed}")
        self._labels: dict[str, str] = {}  # of the first visits that had one
        self.policy = self._before = lane.bench.start
        self._ahead: asyncio.Task[tuple[list[Question], list[Group]]] | None = None
        self.step = 0
        self.num_rollouts = 0
        self.num_tokens = 0
        self.seconds = 0.0

    async def begin(self) -> None:
        """Open a fresh adapter."""
        await self._lane.trainer.ask(Open(self._arm.config), Opened)

    async def advance(self) -> dict[str, float]:
        """One batch of samples and what it teaches; the step's numbers."""
        started = perf_counter()
        self.step += 1
        questions, groups = await (self._ahead or self._draw(self.step))
        if self._arm.ahead:
            self._ahead = asyncio.create_task(self._draw(self.step + 1))
        batch = await asyncio.to_thread(self._estimate, groups)
        credits = assign_credit(batch, self._arm.rules)
        samples = _train_samples(groups, credits)
        metrics = _metrics(questions, batch, credits)
        if samples:
            stepped = await self._lane.trainer.ask(Step(samples), Stepped)
            metrics |= {"entropy": stepped.entropy, "grad_norm": stepped.grad_norm}
            await self._load()
        self.num_rollouts += sum(len(group.drawn) for group in groups)
        self.num_tokens += sum(group.num_tokens for group in groups)
        self.seconds += perf_counter() - started
        return metrics

    async def end(self) -> None:
        """Sample no more: a batch that is ahead is in vain."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)
            self._ahead = None

    async def _draw(self, step: int) -> tuple[list[Question], list[Group]]:
        questions = self._questions_of(step)
        occasion = f"step {step}"
        return questions, await all_of(self._group(one, occasion) for one in questions)

    async def _group(self, question: Question, occasion: str) -> Group:
        """As server.adaptation.sampling: some samples of a question may be the incumbent's."""
        sample, arm, start = self._lane.sample, self._arm, self._lane.bench.start
        is_backed = self.policy == start or question.text in self._labels
        votes = 0 if is_backed else arm.incumbent_votes
        drawn = await all_of(
            sample(policy, arm, [question], n, occasion)
            for policy, n, occasion in (
                (self.policy, arm.samples - votes, occasion),
                (start, votes, f"{occasion} incumbent"),
            )
        )
        (own,), (theirs,) = drawn
        return replace(own, incumbent=theirs.samples)

    async def _load(self) -> None:
        folder = self._lane.folder / f"s{self.step}"
        await self._lane.trainer.ask(Save(str(folder)), Saved)
        gone, self._before = self._before, self.policy  # a batch ahead comes from `_before`
        self.policy = Policy(f"{self._lane.name}-s{self.step}", str(folder))
        await self._lane.bench.sampler.load(self.policy)
        if gone != self._lane.bench.start:
            await self._lane.bench.sampler.forget(gone.engine_name)

    def _questions_of(self, step: int) -> list[Question]:
        """Round and round in an order of this run's own."""
        size = len(self._questions)
        first = (step - 1) * PROMPTS_PER_STEP
        return [
            self._questions[(first + place) % size] for place in range(min(size, PROMPTS_PER_STEP))
        ]

    def _estimate(self, groups: Sequence[Group]) -> list[tuple[list[Ballot], Estimate]]:
        found: list[tuple[list[Ballot], Estimate]] = []
        for group in groups:
            ballots = self._lane.ballots(group)
            estimator = self._arm.estimating(group.question, self._dice)
            if group.incumbent:
                estimator = Backed(estimator, {b.vote for b in ballots[len(group.samples) :]})
            if self._arm.steady:
                estimator = Steady(estimator, self._labels.get(group.question.text))
            estimate = estimator(ballots)
            if estimate.vote.label is not None:
                self._labels.setdefault(group.question.text, estimate.vote.label)
            found.append((ballots, estimate))
        return found


def _train_samples(groups: Sequence[Group], credits: Sequence[Credit]) -> list[TrainSample]:
    return [
        TrainSample(ids, done.token_ids, done.logprobs, [advantage] * len(done.token_ids))
        for group, credit in zip(groups, credits, strict=True)
        for (_, ids, done), advantage in zip(group.samples, credit.advantages or (), strict=False)
        if advantage is not None
    ]


def _metrics(
    questions: Sequence[Question],
    batch: Sequence[tuple[Sequence[Ballot], Estimate]],
    credits: Sequence[Credit],
) -> dict[str, float]:
    votes = [estimate.vote for _, estimate in batch]
    labels = [
        float(vote.label == question.answer)
        for vote, question in zip(votes, questions, strict=True)
        if vote.label is not None
    ]
    agreements = [vote.view_agreement for vote in votes if vote.view_agreement is not None]
    return {
        "majority_ratio": sum(vote.majority_ratio for vote in votes) / len(votes),
        "labelled": len(labels) / len(votes),
        "trained": sum(credit.advantages is not None for credit in credits) / len(credits),
        **({"label_accuracy": sum(labels) / len(labels)} if labels else {}),
        **({"view_agreement": sum(agreements) / len(agreements)} if agreements else {}),
    }
