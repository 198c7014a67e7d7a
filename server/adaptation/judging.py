"""From sampled groups to votes, rewards and advantages. CPU work, done in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from random import Random
from types import MappingProxyType
from typing import Literal

import structlog
from ttrl_client.types import TenantSettings

from adapters.answers import AnswerSpec, Defect, defects_named
from adapters.answers.strict import READ_STRICTLY, strict_answer
from adapters.answers.worker import JudgeFailed
from adapters.batch import TrainSample
from adapters.credit import Credit, CreditRules, assign_credit
from adapters.estimators import (
    Backed,
    Ballot,
    Estimate,
    Guard,
    Options,
    Steady,
    Visit,
    make_estimator,
    told,
)
from adapters.estimators.ballots import no_signal
from adapters.vote import Vote, majority
from server.adaptation.groups import Sample, SampledGroup
from server.adaptation.run import Run
from server.adaptation.tools import Judge
from server.answers import spec_of
from server.db import steps
from server.db.steps import GroupRecord, RolloutRecord
from server.errors import CycleError

logger = structlog.get_logger(__name__)

REFUSED = "refused"
UNANIMOUS = "unanimous"
UNJUDGED = "unjudged"

LabelSource = Literal["vote", "feedback"]


@dataclass(frozen=True, slots=True)
class JudgedSample:
    """A sample with what the vote made of it; None where it does not take part."""

    sample: Sample
    answer: str | None  # its class representative
    reward: float | None
    advantage: float | None


@dataclass(frozen=True, slots=True)
class JudgedGroup:
    """A group with its vote. `reason` says why nothing can be learned from it.

    Where the truth is known, `vote.label` is the truth, unless the tenant wants its votes alone;
    `voted` is what the vote itself said.
    """

    group: SampledGroup
    vote: Vote
    reason: str | None
    samples: tuple[JudgedSample, ...]
    truth: str | None = None
    voted: str | None = None
    label_source: LabelSource | None = None  # None: there is no label
    flipped: bool | None = None  # whether the label is another than the visit before's; None: one
    # of the two visits has none

    @property
    def own(self) -> tuple[JudgedSample, ...]:
        """Those of the weights that are learning; the others, behind them, are the incumbent's."""
        return self.samples[: len(self.group.samples)]

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
            label_source=self.label_source,
            majority_ratio=self.vote.majority_ratio if self.samples else None,
            num_answers=sum(judged.answer is not None for judged in self.samples),
            reason=self.reason,
            rollouts=[_rollout(judged) for judged in self.samples],
        )


def train_sample(sample: Sample, advantage: float = 0.0) -> TrainSample:
    """A sample in the trainer's form, token ids and log-probabilities as the engine gave them."""
    return TrainSample(
        prompt_ids=sample.prompt_ids,
        completion_ids=sample.completion.token_ids,
        inference_logprobs=sample.completion.logprobs,
        advantages=[advantage] * len(sample.completion.token_ids),
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


async def judge(
    run: Run, groups: Sequence[SampledGroup], truths: Mapping[str, str]
) -> tuple[JudgedGroup, ...]:
    """Vote on each group of a step, and give its samples their advantages; `truths` by fingerprint
    are the labels where they are known.
    """
    fingerprints = [group.prompt.fingerprint for group in groups]
    async with run.tools.database.transaction(write=False) as session:
        history = await steps.label_history(session, run.lease.tenant_id, fingerprints)
        first = await steps.first_labels(session, run.lease.cycle_id, fingerprints)
    past = {
        fingerprint: Past([Visit(label, ratio) for label, ratio in visits], first.get(fingerprint))
        for fingerprint, visits in history.items()
    }
    return await asyncio.to_thread(
        judge_groups, groups, run.tools.judge, run.settings, past, truths, seed=run.seed
    )


@dataclass(frozen=True, slots=True)
class Past:
    """A prompt's earlier visits, oldest first, and its first label in this cycle."""

    visits: Sequence[Visit] = ()
    first: str | None = None

    @property
    def last(self) -> str | None:
        """The label of the last visit that had one."""
        return next((v.label for v in reversed(self.visits) if v.label is not None), None)


@dataclass(frozen=True, slots=True)
class _Considered:
    """A group's ballots, what becomes of them, and what they alone said."""

    ballots: list[Ballot]
    estimate: Estimate
    voted: str | None
    truth: str | None
    is_told: bool  # the label is the truth, not the vote's
    flipped: bool | None


def judge_groups(
    groups: Sequence[SampledGroup],
    judge: Judge,
    settings: TenantSettings,
    past: Mapping[str, Past],
    truths: Mapping[str, str] = MappingProxyType({}),
    *,
    seed: int,
) -> tuple[JudgedGroup, ...]:
    """Ballots, estimates, credit. Blocking.

    Args:
        past: what earlier visits of each prompt voted, by fingerprint.
        truths: known answers by fingerprint, as class representatives.
        seed: of the guard's dice, with the prompt and the number of its visits.
    """
    learning = settings.learning
    rules = CreditRules(
        advantage=learning.advantage,
        train_samples=learning.train_samples,
        downsample=learning.downsample,
        exploration_bonus=learning.exploration_bonus,
    )
    considered = [
        _consider(
            group,
            judge,
            settings,
            past.get(group.prompt.fingerprint, Past()),
            truths.get(group.prompt.fingerprint),
            seed,
        )
        for group in groups
    ]
    credits = assign_credit([(one.ballots, one.estimate) for one in considered], rules)
    return tuple(
        _judged(group, one, credit)
        for group, one, credit in zip(groups, considered, credits, strict=True)
    )


def _consider(
    group: SampledGroup,
    judge: Judge,
    settings: TenantSettings,
    past: Past,
    truth: str | None,
    seed: int,
) -> _Considered:
    learning, spec = settings.learning, spec_of(settings)
    try:
        past = _renamed(past, judge, spec, truth)
        known = [answer for answer in (truth, past.last, past.first) if answer is not None]
        ballots = ballots_of(group, judge, spec, strictly=reads_strictly(settings), known=known)
    except Defect:  # one prompt's answers must not end the cycle, and every later one
        logger.exception("answers not compared", fingerprint=group.prompt.fingerprint)
        return _unjudged(group, truth)
    estimator = make_estimator(learning.estimator, Options(min_answers=learning.min_answers))
    plain = estimate = estimator(ballots)
    is_told = truth is not None and learning.use_feedback
    if truth is not None and is_told:
        estimate = told(truth, ballots, plain)
    else:
        if learning.guard:
            dice = Random(f"guard/{seed}/{group.prompt.fingerprint}/{len(past.visits)}")
            estimator = Guard(estimator, past.visits, dice)
        if group.incumbent:
            estimator = Backed(estimator, _backing(group, ballots))
        if learning.steady:
            estimator = Steady(estimator, past.first or past.last)
        estimate = estimator(ballots)
    label = estimate.vote.label
    flipped = None if past.last is None or label is None else label != past.last
    return _Considered(ballots, estimate, plain.vote.label, truth, is_told, flipped)


def _renamed(past: Past, judge: Judge, spec: AnswerSpec, truth: str | None) -> Past:
    """The past with one name for labels that are equal: the truth's, if they equal it. They were
    named before it was known, or without knowing of each other.
    """
    known = [] if truth is None else [truth]
    labels = [*(visit.label for visit in past.visits), past.first]
    names = judge.classes(labels, spec, known=known)
    # A label that is none of the kind any more, since the tenant chose another, is kept.
    *kept, first = [name or label for name, label in zip(names, labels, strict=True)]
    visits = [replace(v, label=name) for v, name in zip(past.visits, kept, strict=True)]
    return Past(visits, first)


def _backing(group: SampledGroup, ballots: Sequence[Ballot]) -> set[str]:
    """What the incumbent answered; its ballots come after those of the samples."""
    size = len(group.samples)
    votes = (ballot.vote for ballot in ballots[size : size + len(group.incumbent)])
    return {vote for vote in votes if vote is not None}


def _unjudged(group: SampledGroup, truth: str | None) -> _Considered:
    ballots = [Ballot(None, rewarded=False) for _ in (*group.samples, *group.incumbent)]
    vote = replace(majority([None] * len(ballots), min_answers=1), reason=UNJUDGED)
    estimate = no_signal(vote, ballots)
    return _Considered(ballots, estimate, None, truth, is_told=False, flipped=None)


def _judged(group: SampledGroup, considered: _Considered, credit: Credit) -> JudgedGroup:
    ballots, vote = considered.ballots, considered.estimate.vote
    advantages = credit.advantages or (None,) * len(ballots)
    samples = tuple(
        JudgedSample(sample, ballots[index].answer, credit.rewards[index], advantages[index])
        for index, sample in enumerate((*group.samples, *group.incumbent))
    )
    reason = vote.reason
    if group.refused:
        reason = REFUSED
    elif credit.advantages is not None:
        reason = None  # negative labels teach without a positive one
    elif reason is None:
        reason = UNANIMOUS
    return JudgedGroup(
        group,
        vote,
        reason,
        samples,
        truth=considered.truth,
        voted=considered.voted,
        label_source=_label_source(considered),
        flipped=considered.flipped,
    )


def _label_source(considered: _Considered) -> LabelSource | None:
    if considered.estimate.vote.label is None:
        return None
    return "feedback" if considered.is_told else "vote"


def reads_strictly(settings: TenantSettings) -> bool:
    """Whether answers are extracted as the published code does: its vote is over their strings."""
    return settings.learning.estimator == "majority_strict" and settings.answer in READ_STRICTLY


def ballots_of(
    group: SampledGroup,
    judge: Judge,
    spec: AnswerSpec,
    *,
    strictly: bool = False,
    known: Sequence[str] = (),
) -> list[Ballot]:
    """One ballot a sample, then one of the incumbent's, and then one a served answer, which votes
    as view 0. Answers that equal one of `known` have its name. Blocking.
    """
    sampled = (*group.samples, *group.incumbent)
    written = [
        *written_answers(sampled, judge, spec, strictly=strictly),
        *_extract(group.served, judge, spec, strictly=strictly),
    ]
    classes = judge.classes(written, spec, known=known)
    served = zip(classes[len(sampled) :], written[len(sampled) :], strict=True)
    return [
        Ballot(
            answer=classes[index],
            written=written[index],
            view=sample.view,
            masked=sample.truncated,
            num_tokens=len(sample.completion.token_ids),
            confidence=_mean(sample.completion.logprobs),
            rewarded=index < len(group.samples),
        )
        for index, sample in enumerate(sampled)
    ] + [Ballot(answer, text, rewarded=False) for answer, text in served]


def written_answers(
    samples: Sequence[Sample], judge: Judge, spec: AnswerSpec, *, strictly: bool = False
) -> list[str | None]:
    """Each sample's answer as written; None for truncated ones and those without an answer.

    Raises:
        CycleError: the tenant's own function cannot be loaded.
    """
    whole = [sample.completion.text for sample in samples if not sample.truncated]
    found = iter(_extract(whole, judge, spec, strictly=strictly))
    return [None if sample.truncated else next(found) for sample in samples]


def _extract(
    texts: Sequence[str], judge: Judge, spec: AnswerSpec, *, strictly: bool
) -> list[str | None]:
    if strictly:
        with defects_named():
            return [strict_answer(text, spec) for text in texts]
    try:
        return judge.extract(texts, spec)
    except JudgeFailed as error:
        raise CycleError(f"answer: {error}") from error


def answer_classes(
    samples: Sequence[Sample], judge: Judge, spec: AnswerSpec, *, known: Sequence[str] = ()
) -> list[str | None]:
    """The class of each sample's answer; answers that a defect keeps from being compared are none.
    Blocking.
    """
    try:
        return judge.classes(written_answers(samples, judge, spec), spec, known=known)
    except Defect:
        logger.exception("answers not compared")
        return [None] * len(samples)


def _mean(values: Sequence[float]) -> float | None:
    return fsum(values) / len(values) if values else None
