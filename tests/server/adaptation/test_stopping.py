"""When a cycle stops early, and what it goes on with."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ttrl_client.types import StopRules

from server.adaptation.stopping import EarlyStop, Measured, early_stop, plateau

RULES = StopRules(patience=5)


def measured(**series: list[float]) -> list[Measured]:
    """Steps that each made an update, with one value of every series."""
    num_steps = max(map(len, series.values()))
    return [
        Measured(at, {name: values[at] for name, values in series.items() if at < len(values)})
        for at in range(num_steps)
    ]


def first_stop(steps: list[Measured], rules: StopRules = RULES) -> tuple[int, EarlyStop] | None:
    """After how many steps it stops, and how."""
    for num in range(1, len(steps) + 1):
        if (stop := early_stop(steps[:num], rules)) is not None:
            return num, stop
    return None


def test_a_healthy_cycle_goes_on() -> None:
    steps = measured(
        answer_rate=[0.9] * 20,
        entropy=[1.0 - n / 30 for n in range(20)],
        view_agreement=[0.5 + n / 50 for n in range(20)],
        kl_base=[n / 30 for n in range(20)],
    )
    assert first_stop(steps) is None


def test_lost_answers_are_a_collapse() -> None:
    steps = measured(
        answer_rate=[0.9, 0.9, 0.9, 0.9, 0.9, 0.5, 0.2, 0.1],
        view_agreement=[0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0],
    )
    found = first_stop(steps)
    assert found is not None
    # The last three of six steps are suspect: the best of the others is the third.
    assert found == (
        7,
        EarlyStop("stopped: answer_rate: 0.53 < 0.90 - 0.2 after step 7; step 3 was the best", 3),
    )


def test_a_fall_within_what_the_prompts_differ_by_is_none() -> None:
    rates, unlike = [0.9, 0.8, 0.9, 0.5, 0.5, 0.5], [0.17] * 6
    sure = measured(answer_rate=rates, answer_rate_error=[0.01] * 6)
    unsure = measured(answer_rate=rates, answer_rate_error=unlike)
    assert first_stop(sure) is not None
    assert first_stop(unsure) is None


def test_lost_entropy_is_a_collapse() -> None:
    steps = measured(entropy=[1.0, 0.5, 0.1, 0.019], majority_ratio=[0.4, 0.5, 0.6, 1.0])
    assert first_stop(steps) == (
        4,
        EarlyStop("stopped: entropy: 0.019 < 0.02 * 1 after step 4; step 2 was the best", 2),
    )


@pytest.mark.parametrize("name", ["kl_base", "mismatch_kl"])
def test_drift_stops(name: str) -> None:
    steps = measured(**{name: [0.1, 0.4, 0.9, 1.2], "view_agreement": [0.5, 0.6, 0.7, 0.8]})
    found = first_stop(steps)
    assert found is not None
    assert (found[0], found[1].best_step) == (4, 2)
    assert found[1].reason.startswith(f"stopped: {name}: 1.2 > 1 ")


def test_patience_ends() -> None:
    agreement = [0.3, 0.5, 0.7, 0.9, 0.9, 0.9, *[0.8] * 10]
    found = first_stop(measured(view_agreement=agreement))
    # The best three steps end at the sixth, which sampled from the fifth's weights.
    assert found == (
        11,
        EarlyStop(
            "stopped: no_progress: none for 5 steps after step 11; step 5 was the best",
            5,
            is_harm=False,
        ),
    )


def test_of_steps_whose_views_agree_alike_the_best_has_the_highest_ratio() -> None:
    steps = measured(
        view_agreement=[0.5, *[1.0] * 12],
        majority_ratio=[0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, *[0.9] * 6],
    )
    found = first_stop(steps)
    assert found is not None
    assert (found[0], found[1].best_step) == (13, 7)


def test_the_plateau_is_where_the_ratio_was_as_good_as_ever() -> None:
    ratios = [0.3, 0.5, 0.7, 0.9, 0.95, 0.95, 0.94, 0.8, 0.7, 0.95, 0.95, 0.96]
    # As means over three: .. .85 .93 .95 .90 .81 .82 .87 .95
    assert plateau(measured(majority_ratio=ratios), 12) == {5, 6, 11, 12}
    assert plateau(measured(majority_ratio=[0.5]), 1) == {1}  # not the incumbent's
    assert plateau([], 0) == set()


def test_without_views_the_votes_say_whether_there_is_progress() -> None:
    assert first_stop(measured(majority_ratio=[0.5] * 20)) is not None
    rising = [0.5 + n / 50 for n in range(20)]
    assert first_stop(measured(majority_ratio=[0.5] * 20, view_agreement=rising)) is None


def test_a_policy_that_was_never_well_leaves_nothing_to_go_on_with() -> None:
    assert first_stop(measured(kl_base=[2.0])) == (
        1,
        EarlyStop("stopped: kl_base: 2 > 1 after step 1; no step goes on", 0),
    )


def test_the_rules_can_be_switched_off() -> None:
    steps = measured(answer_rate=[0.9] * 3 + [0.0] * 20, entropy=[1.0] + [0.0] * 22)
    assert first_stop(steps, StopRules(enabled=False)) is None


METRICS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "answer_rate": st.floats(0, 1),
        "answer_rate_error": st.floats(0, 0.3),
        "entropy": st.floats(0, 3),
        "kl_base": st.floats(0, 2),
        "view_agreement": st.floats(0, 1),
        "majority_ratio": st.floats(0, 1),
    },
)


@given(st.lists(METRICS, max_size=30), st.integers(1, 5))
def test_the_best_step_is_one_that_was_sampled_from(
    metrics: list[dict[str, Any]], patience: int
) -> None:
    steps = [Measured(2 * at, found) for at, found in enumerate(metrics)]
    stop = early_stop(steps, StopRules(patience=patience))
    assert stop is None or stop.best_step in {step.sampled_from for step in steps} | {0}
