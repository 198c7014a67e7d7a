"""From sampled groups to votes, rewards and advantages. CPU work, done in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ttrl_client.types import Learning

from adapters.advantage import advantages, rewards
from adapters.answers import AnswerKind, extract
from adapters.batch import TrainSample
from adapters.vote import Vote, harmony, majority
from server.adaptation.run import Run
from server.adaptation.sampling import Sample, SampledGroup
from server.adaptation.tools import Judge
from server.db.steps import GroupRecord, RolloutRecord

REFUSED = "refused"
UNANIMOUS = "unanimous"


@dataclass(frozen=True, slots=True)
class JudgedSample:
    """A sample with what the vote made of it; None where it does not take part."""

    sample: Sample
    answer: str | None  # its class representative
    reward: float | None
    advantage: float | None


@dataclass(frozen=True, slots=True)
class JudgedGroup:
    """A group with its vote. `reason` says why nothing can be learned from it."""

    group: SampledGroup
    vote: Vote
    reason: str | None
    samples: tuple[JudgedSample, ...]

    def train_samples(self) -> list[TrainSample]:
        """What the trainer gets: samples with an advantage."""
        return [
            train_sample(judged.sample, judged.advantage)
            for judged in self.samples
            if judged.advantage is not None
        ]

    def record(self) -> GroupRecord:
        """As it is stored."""
        return GroupRecord(
            query_id=self.group.prompt.query_id,
            fingerprint=self.group.prompt.fingerprint,
            label=self.vote.label,
            majority_ratio=self.vote.majority_ratio if self.samples else None,
            num_answers=self.vote.num_answers,
            reason=self.reason,
            rollouts=[_rollout(judged) for judged in self.samples],
        )


def train_sample(sample: Sample, advantage: float = 0.0) -> TrainSample:
    """A sample in the trainer's form, token ids and log-probabilities as the engine gave them."""
    return TrainSample(
        prompt_ids=sample.prompt_ids,
        completion_ids=sample.completion.token_ids,
        inference_logprobs=sample.completion.logprobs,
        advantage=advantage,
    )


def _rollout(judged: JudgedSample) -> RolloutRecord:
    completion = judged.sample.completion
    return RolloutRecord(
        view=judged.sample.view,
        text=completion.text,
        answer=judged.answer,
        reward=judged.reward,
        advantage=judged.advantage,
        num_tokens=len(completion.token_ids),
        finish_reason=completion.finish_reason,
    )


async def judge(run: Run, groups: Sequence[SampledGroup]) -> tuple[JudgedGroup, ...]:
    """Vote on each group, and reward its samples against its label."""
    return await asyncio.to_thread(
        lambda: tuple(
            judge_group(group, run.tools.judge, run.settings.answer, run.settings.learning)
            for group in groups
        )
    )


def judge_group(
    group: SampledGroup, judge: Judge, kind: AnswerKind, learning: Learning
) -> JudgedGroup:
    """The vote of one group. Truncated samples neither vote nor are rewarded. Blocking."""
    answers = answer_classes(group.samples, judge, kind)
    vote = _vote(group.samples, answers, learning)
    if group.refused or vote.label is None:
        reason = REFUSED if group.refused else vote.reason
        silent = [
            JudgedSample(sample, answer, None, None)
            for sample, answer in zip(group.samples, answers, strict=True)
        ]
        return JudgedGroup(group, vote, reason, tuple(silent))
    whole = [index for index, sample in enumerate(group.samples) if not sample.truncated]
    given = rewards([answers[index] for index in whole], vote.label)
    relative = advantages(given)
    reward_of = dict(zip(whole, given, strict=True))
    advantage_of = {} if relative is None else dict(zip(whole, relative, strict=True))
    samples = tuple(
        JudgedSample(sample, answers[index], reward_of.get(index), advantage_of.get(index))
        for index, sample in enumerate(group.samples)
    )
    return JudgedGroup(group, vote, UNANIMOUS if relative is None else None, samples)


def answer_classes(
    samples: Sequence[Sample], judge: Judge, kind: AnswerKind, *, known: Sequence[str] = ()
) -> list[str | None]:
    """The class of each sample's answer, None for truncated ones and those without an answer."""
    found = [None if s.truncated else extract(s.completion.text, kind) for s in samples]
    return judge.classes(found, kind, known=known)


def _vote(samples: Sequence[Sample], answers: Sequence[str | None], learning: Learning) -> Vote:
    if learning.estimator == "majority":
        return majority(answers, min_answers=learning.min_answers)
    views = [sample.view for sample in samples]
    return harmony(answers, views, min_answers=learning.min_answers)
