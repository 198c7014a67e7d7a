"""How many answers a vote draws, and when it may end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adapters.answers import AnswerSpec
from adapters.estimators import Ballot
from adapters.vote import majority
from adapters.waves import find_stop, lead_probability
from server.gateway.votes.plan import VotePlan

votes = st.integers(1, 64)
confidences = st.floats(0.51, 1)


def plan(num_votes: int, confidence: float) -> VotePlan:
    return VotePlan(num_votes, num_votes, confidence, AnswerSpec("number"))


@given(votes, confidences)
def test_waves_are_few_and_draw_all_votes_together(num_votes: int, confidence: float):
    waves = list(plan(num_votes, confidence).waves())
    assert sum(waves) == num_votes
    assert len(waves) <= 7
    assert all(wave > 0 for wave in waves)


@given(votes, confidences)
def test_the_first_wave_is_the_fewest_that_decide(num_votes: int, confidence: float):
    first = plan(num_votes, confidence).first_wave
    is_majority = 2 * first > num_votes
    assert is_majority or lead_probability(first, 0) >= confidence
    assert first == 1 or lead_probability(first - 1, 0) < confidence


@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=24), st.data())
def test_what_is_locked_is_what_all_votes_would_say(answers: list[str | None], data: st.DataObject):
    seen = data.draw(st.integers(1, len(answers)))
    ballots = [Ballot(answer) for answer in answers[:seen]]
    lock = plan(len(answers), 0.95).lock
    if find_stop(ballots, [len(answers) - seen], lock) in ("unanimous", "decided"):
        label = majority(answers[:seen], min_answers=1).label
        assert majority(answers, min_answers=1).label == label
