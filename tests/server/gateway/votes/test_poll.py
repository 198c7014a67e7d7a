"""The vote itself, over a sampler and a judge that are only told what to say."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from adapters.answers import AnswerSpec
from adapters.vote import majority
from server.db.log import LoggedAnswer
from server.gateway.votes.plan import VotePlan
from server.gateway.votes.poll import Outcome, Poll, Progress, Unjudged

TEXTS = st.sampled_from(["1", "2", "3", ""])


@dataclass
class Told:
    """Answers these texts one by one, the last of each wave first."""

    texts: Sequence[str]
    num_drawn: int = 0
    num_closed_early: int = 0

    async def draw(self, size: int) -> AsyncGenerator[Sequence[LoggedAnswer]]:
        wave = range(self.num_drawn, self.num_drawn + size)
        self.num_drawn += size
        try:
            for choice in reversed(wave):
                yield [LoggedAnswer(choice, self.texts[choice], None, "stop")]
        except GeneratorExit:
            self.num_closed_early += 1
            raise


@dataclass
class Reader:
    """Takes texts for answers. The first `num_late` times it is late."""

    num_late: int = 0
    extracted: list[str] = field(default_factory=list[str])

    async def extract(
        self, tenant_id: int, texts: Sequence[str], spec: AnswerSpec
    ) -> list[str | None]:
        if self.num_late:
            self.num_late -= 1
            raise Unjudged
        self.extracted += texts
        return [text or None for text in texts]

    async def classes(
        self, tenant_id: int, written: Sequence[str | None], spec: AnswerSpec
    ) -> Sequence[str | None]:
        return written


def plan(votes: int, confidence: float = 0.95) -> VotePlan:
    return VotePlan(votes, votes, confidence, AnswerSpec("text"))


async def hold(texts: Sequence[str], judge: Reader, confidence: float = 0.95) -> Outcome:
    return await Poll(plan(len(texts), confidence), Told(texts), judge, 1).hold()


@given(st.lists(TEXTS, min_size=1, max_size=24), st.booleans())
async def test_an_early_end_at_full_confidence_changes_no_label(
    texts: list[str], does_listen: bool
):
    heard: list[Progress] = []

    async def listen(progress: Progress) -> None:
        heard.append(progress)

    sampler = Told(texts)
    listener = listen if does_listen else None
    outcome = await Poll(plan(len(texts), 1), sampler, Reader(), 1, listener).hold()
    assert outcome.vote is not None
    assert outcome.vote.label == majority([text or None for text in texts], min_answers=1).label
    assert outcome.chosen.text == (outcome.vote.label or "")
    assert [progress.num_votes for progress in heard] == list(range(1, len(heard) + 1))
    assert sampler.num_closed_early == (len(outcome.answers) < sampler.num_drawn)


async def test_the_first_of_the_majority_is_chosen_whichever_ended_first():
    outcome = await hold(["2", "1", "1"], Reader())
    assert (outcome.chosen.choice, outcome.chosen.text) == (1, "1")


async def test_each_text_is_read_once():
    judge = Reader()
    await hold(list("12121212"), judge)
    assert sorted(judge.extracted) == sorted("12121212")


async def test_a_judge_that_is_late_at_first():
    outcome = await hold(["1"] * 16, Reader(num_late=1))
    assert outcome.vote is not None
    assert (outcome.vote.label, len(outcome.answers)) == ("1", 8)


async def test_a_judge_that_is_always_late():
    outcome = await hold(["1"] * 4, Reader(num_late=100))
    assert (outcome.vote, outcome.is_decided, len(outcome.answers)) == (None, False, 4)
    assert outcome.chosen.choice == 0
