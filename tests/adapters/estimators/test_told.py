from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from adapters.estimators import ESTIMATORS, Ballot, make_estimator, told

BALLOTS = st.lists(
    st.builds(
        Ballot,
        answer=st.sampled_from(["a", "b", "c", None]),
        view=st.integers(0, 2),
        masked=st.booleans(),
        rewarded=st.booleans(),
    ),
    min_size=1,
    max_size=20,
)


@pytest.mark.parametrize("name", ESTIMATORS)
@given(ballots=BALLOTS)
def test_a_truth_alone_decides_what_earns(name: str, ballots: list[Ballot]) -> None:
    voted = make_estimator(name)(ballots)
    estimate = told("b", ballots, voted)
    if voted.vote.num_answers == 0:
        assert estimate == voted
        return
    assert estimate.vote.label == "b"
    assert estimate.vote.reason is None
    assert estimate.vote.majority_ratio == sum(b.vote == "b" for b in ballots) / len(ballots)
    assert estimate.vote.view_agreement == voted.vote.view_agreement
    assert estimate.weight == 1.0
    assert estimate.rewards == tuple(
        float(ballot.answer == "b") if ballot.earns else None for ballot in ballots
    )
