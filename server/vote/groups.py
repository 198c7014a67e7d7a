"""From lines of responses to lines of votes. Memory is bounded, because only a few groups are read
ahead; several threads judge them, each with a judge process at its disposal.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgspec

from adapters.answers import AnswerSpec, Defect, Equivalence, defects_named, extract
from adapters.answers.strict import READ_STRICTLY, strict_answer
from adapters.estimators import Ballot, Estimator, Options, make_estimator

logger = logging.getLogger(__name__)

READ_AHEAD = 8  # groups for each thread
STRICT = "majority_strict"
UNJUDGED = "unjudged"


class Group(msgspec.Struct):
    """A line of the input. Fields that are not named here are ignored."""

    responses: list[str]
    id: str | int | None = None
    ground_truth: Any = None
    is_ground_truth: list[bool | int] | None = None  # which responses are right


class VotedGroup(msgspec.Struct, omit_defaults=True):
    """A line of the output. `answers` are class representatives; of the strict vote, strings."""

    id: str | int
    label: str | None
    majority_ratio: float
    rewards: list[float | None]
    answers: list[str | None]
    label_correct: bool | None = None
    reason: str | None = None  # why there is no label


@dataclass(frozen=True, slots=True)
class VoteRules:
    """How groups are voted on. Raises ValueError if there is no such estimator."""

    spec: AnswerSpec
    estimator: str = "majority"
    min_answers: int = 1

    def __post_init__(self) -> None:
        make_estimator(self.estimator)

    def make(self) -> Estimator:
        """The estimator."""
        return make_estimator(self.estimator, Options(min_answers=self.min_answers))


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no group."""

    number: int  # from 1
    problem: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A group with its vote, and how many of its rewards are known to be right."""

    voted: VotedGroup
    num_known: int = 0
    num_right: int = 0


@dataclass(slots=True)
class Totals:
    """Sums over groups."""

    groups: int = 0
    labelled: int = 0
    bad_lines: int = 0
    truths: int = 0  # groups whose truth is known
    right_labels: int = 0
    known_rewards: int = 0
    right_rewards: int = 0
    majority_ratio: float = 0.0  # summed
    reasons: Counter[str] = field(default_factory=Counter[str])

    def add(self, outcome: Judged | BadLine) -> None:
        """Count one line."""
        if isinstance(outcome, BadLine):
            self.bad_lines += 1
            return
        voted = outcome.voted
        self.groups += 1
        self.labelled += voted.label is not None
        self.majority_ratio += voted.majority_ratio
        self.truths += voted.label_correct is not None
        self.right_labels += voted.label_correct is True
        self.known_rewards += outcome.num_known
        self.right_rewards += outcome.num_right
        if voted.reason is not None:
            self.reasons[voted.reason] += 1


def vote_on(
    lines: Iterable[bytes], rules: VoteRules, judge: Equivalence, *, threads: int
) -> Iterator[Judged | BadLine]:
    """The outcome of each line that is not blank, in order.

    Raises:
        JudgeFailed: a process that reads answers does not start.
    """
    waiting: deque[Future[Judged | BadLine]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="vote") as pool:
        try:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                waiting.append(pool.submit(_outcome, number, line, rules, judge))
                if len(waiting) >= READ_AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also when nobody wants the rest
            for future in waiting:
                future.cancel()


def _outcome(number: int, line: bytes, rules: VoteRules, judge: Equivalence) -> Judged | BadLine:
    try:
        group = msgspec.json.decode(line, type=Group)
    except (msgspec.DecodeError, RecursionError) as error:  # also what does not fit the fields
        return BadLine(number, str(error))
    right = group.is_ground_truth
    if right is not None and len(right) != len(group.responses):
        return BadLine(number, f"{len(right)} is_ground_truth for {len(group.responses)} responses")
    try:
        return judge_group(group, number, rules, judge)
    except Defect:  # of ours: one group's answers must not end the votes on all the others
        logger.exception("line %d: answers not compared", number)
        return Judged(_unjudged(group, number))


def _unjudged(group: Group, number: int) -> VotedGroup:
    nothing = [None] * len(group.responses)
    name = number if group.id is None else group.id
    return VotedGroup(name, None, 0.0, rewards=[*nothing], answers=[*nothing], reason=UNJUDGED)


def judge_group(group: Group, number: int, rules: VoteRules, judge: Equivalence) -> Judged:
    """The vote on one group. Blocking."""
    written = _written(group.responses, rules, judge)
    classes = judge.classes(written, rules.spec)
    ballots = [Ballot(answer, text) for answer, text in zip(classes, written, strict=True)]
    estimate = rules.make()(ballots)
    vote = estimate.vote
    truth = _class_of_truth(group.ground_truth, classes, rules, judge)
    voted = VotedGroup(
        id=number if group.id is None else group.id,
        label=vote.label,
        majority_ratio=vote.majority_ratio,
        rewards=list(estimate.rewards),
        answers=classes,
        label_correct=None if truth is None else vote.label == truth,
        reason=vote.reason,
    )
    if rules.estimator == STRICT and vote.label is not None:
        top = (
            b.written for b in ballots if vote.shares.get(b.written or "") == vote.majority_ratio
        )
        voted.label, voted.answers = next(top), written
    right = group.is_ground_truth
    if right is None and truth is not None:
        right = [answer == truth for answer in classes]
    if right is None:
        return Judged(voted)
    agreed = sum(
        ((r or 0.0) > 0.5) == bool(t) for r, t in zip(estimate.rewards, right, strict=True)
    )
    return Judged(voted, len(right), agreed)


def _written(responses: list[str], rules: VoteRules, judge: Equivalence) -> list[str | None]:
    if rules.estimator == STRICT and rules.spec.kind in READ_STRICTLY:
        with defects_named():
            return [strict_answer(response, rules.spec) for response in responses]
    return judge.extract(responses, rules.spec)


def _class_of_truth(
    truth: Any, classes: list[str | None], rules: VoteRules, judge: Equivalence
) -> str | None:
    """The class that the truth belongs to; a worked solution is read as a response is."""
    if truth is None:
        return None
    text = truth if isinstance(truth, str) else msgspec.json.encode(truth).decode()
    if rules.spec.has_algebra and ("####" in text or "boxed{" in text):
        with defects_named():
            text = extract(text, rules.spec)
    return judge.classes([text], rules.spec, known=[c for c in classes if c is not None])[0]
