"""A vote on one request: answers are drawn in waves and counted, until the vote is decided.

Between waves the counts may decide (adapters.waves); within one only the lock does. What still runs
then is cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from adapters.answers import AnswerSpec
from adapters.estimators import Ballot
from adapters.vote import Vote, majority
from adapters.waves import Rule, find_stop
from server.db.log import LoggedAnswer
from server.gateway.votes.plan import VotePlan

UNJUDGED: Final = "unjudged"
WHOLE: Final = ("stop", "tool_calls")  # how an answer ends that came to its end


class Unjudged(Exception):
    """The answers could not be compared, or not in time."""


class Sampler(Protocol):
    """Draws answers to the request."""

    def draw(self, size: int) -> AsyncGenerator[Sequence[LoggedAnswer]]:
        """`size` more answers as they come to their end, some at a time. `choice` counts over all
        draws. Closing it cancels what is not there yet.

        Raises:
            TTRLError: they cannot be drawn.
        """
        ...


class Judge(Protocol):
    """Finds answers in texts, and equal ones."""

    async def extract(
        self, tenant_id: int, texts: Sequence[str], spec: AnswerSpec
    ) -> Sequence[str | None]:
        """The final answer of each text. Raises Unjudged."""
        ...

    async def classes(
        self, tenant_id: int, written: Sequence[str | None], spec: AnswerSpec
    ) -> Sequence[str | None]:
        """The representative of each answer's class. Raises Unjudged."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a vote is. `leading`: the most frequent answer's share of what there is."""

    num_votes: int
    votes: int
    leading: float | None


OnProgress = Callable[[Progress], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was voted. `vote` is None where nobody could compare the answers."""

    answers: tuple[LoggedAnswer, ...]  # those that came to an end, in the order of their draw
    vote: Vote | None
    chosen: LoggedAnswer
    is_decided: bool


@dataclass(slots=True)
class Poll:
    """The vote of one request."""

    plan: VotePlan
    sampler: Sampler
    judge: Judge
    tenant_id: int
    on_progress: OnProgress | None = None
    _answers: dict[int, LoggedAnswer] = field(default_factory=dict[int, LoggedAnswer])
    _counted: list[Ballot] | None = None
    _written: dict[int, str | None] = field(default_factory=dict[int, str | None])

    async def hold(self) -> Outcome:
        """Draw and count.

        Raises:
            TTRLError: answers cannot be drawn.
        """
        is_decided = False
        for size in self.plan.waves():
            is_decided = await self._draw(size) or self._ends(await self._count(), self.plan.rule)
            if is_decided:
                break
        return self._outcome(await self._count(), is_decided)

    async def _draw(self, size: int) -> bool:
        """One wave; True when the vote was locked before its end."""
        end = len(self._answers) + size
        async with aclosing(self.sampler.draw(size)) as batches:
            async for batch in batches:
                self._answers.update((answer.choice, answer) for answer in batch)
                # Below a half nothing is locked, and without a listener nobody wants to know.
                if self.on_progress is None and 2 * len(self._answers) <= self.plan.votes:
                    continue
                ballots = await self._count()
                await self._report(ballots)
                if len(self._answers) < end and self._ends(ballots, self.plan.lock):
                    return True
        return False

    async def _count(self) -> list[Ballot] | None:
        """A ballot for each answer, in the order of their draw; None: they cannot be compared."""
        if self._counted is None or len(self._counted) < len(self._answers):
            try:
                self._counted = await self._compare()
            except Unjudged:
                self._counted = None
        return self._counted

    async def _compare(self) -> list[Ballot]:
        answers = [self._answers[choice] for choice in sorted(self._answers)]
        texts = {
            a.choice: a.text for a in answers if _has_text(a) and a.choice not in self._written
        }
        if texts:
            found = await self.judge.extract(self.tenant_id, list(texts.values()), self.plan.spec)
            self._written.update(zip(texts, found, strict=True))
        written = [self._written.get(answer.choice) for answer in answers]
        classes = await self.judge.classes(self.tenant_id, written, self.plan.spec)
        return [
            Ballot(
                answer=_call_key(answer) if answer.tool_calls else name,
                written=text,
                masked=answer.finish_reason not in WHOLE,
            )
            for answer, text, name in zip(answers, written, classes, strict=True)
        ]

    def _ends(self, ballots: list[Ballot] | None, rule: Rule) -> bool:
        if ballots is None:
            return False
        remaining = max(self.plan.votes - len(ballots), 0)
        return find_stop(ballots, [remaining], rule) in ("unanimous", "decided")

    async def _report(self, ballots: list[Ballot] | None) -> None:
        if self.on_progress is None:
            return
        leading = None if ballots is None else _vote(ballots).majority_ratio
        await self.on_progress(Progress(len(self._answers), self.plan.votes, leading))

    def _outcome(self, ballots: list[Ballot] | None, is_decided: bool) -> Outcome:
        answers = tuple(self._answers[choice] for choice in sorted(self._answers))
        vote = None if ballots is None else _vote(ballots)
        chosen = next((answer for answer in answers if answer.finish_reason in WHOLE), answers[0])
        if ballots is not None and vote is not None and vote.label is not None:
            votes = [ballot.vote for ballot in ballots]
            chosen = answers[votes.index(vote.label)]
        return Outcome(answers, vote, chosen, is_decided)


def _vote(ballots: Sequence[Ballot]) -> Vote:
    return majority([ballot.vote for ballot in ballots], min_answers=1)


def _has_text(answer: LoggedAnswer) -> bool:
    return not answer.tool_calls and answer.finish_reason in WHOLE


def _call_key(answer: LoggedAnswer) -> str:
    """What tool calls say: equal for the same functions with the same arguments, in this order."""
    called: list[Any] = []
    for call in answer.tool_calls or ():
        function: dict[str, Any] = call.get("function") or {}
        called.append([function.get("name"), _arguments(function.get("arguments"))])
    return "call " + msgspec.json.encode(called, order="sorted").decode()


def _arguments(text: Any) -> Any:
    """Arguments as JSON says them; what is none stays the text that it is."""
    try:
        return msgspec.json.decode(text or "{}")
    except (msgspec.MsgspecError, RecursionError, TypeError):
        return text
