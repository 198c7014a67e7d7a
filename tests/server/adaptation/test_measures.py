"""The label-free monitors."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest

from adapters.vote import majority
from server.adaptation.groups import Sample, SampledGroup
from server.adaptation.judging import JudgedGroup, JudgedSample
from server.adaptation.measures import group_metrics, vote_entropy
from server.adaptation.prompt import Prompt
from server.engine.client import Completion


def group(*answers: str | None) -> JudgedGroup:
    prompt = Prompt("q", "f", [{"role": "user", "content": "x"}])
    samples = tuple(Sample(0, [1], Completion([1, 2], [-1.0, -1.0], "", "stop")) for _ in answers)
    judged = tuple(
        JudgedSample(sample, answer, 0.0, 0.0)
        for sample, answer in zip(samples, answers, strict=True)
    )
    return JudgedGroup(
        SampledGroup(prompt, samples), majority(answers, min_answers=1), None, judged
    )


def test_one_answer_has_no_entropy_and_all_different_ones_have_all_of_it() -> None:
    assert vote_entropy(majority(["1"] * 5, min_answers=1)) == 0.0
    assert vote_entropy(majority(list("12345"), min_answers=1)) == pytest.approx(1.0)
    assert vote_entropy(majority(["1", None], min_answers=1)) is None


def test_samples_without_an_answer_do_not_count_in_the_entropy() -> None:
    halves = majority(["1", "1", "2", "2", None, None], min_answers=1)
    assert vote_entropy(halves) == pytest.approx(log(2) / log(4))


def test_the_flip_rate_is_of_labels_that_can_have_flipped() -> None:
    groups = [replace(group("1"), flipped=flipped) for flipped in (True, False, None)]
    assert group_metrics(groups, 1.0)["flip_rate"] == 0.5
    assert "flip_rate" not in group_metrics([group("1")], 1.0)


def test_the_error_of_the_answer_rate_is_between_prompts() -> None:
    alike = group_metrics([group("1", None), group(None, "2")], 1.0)
    unlike = group_metrics([group("1", "1"), group(None, None)], 1.0)
    assert alike["answer_rate"] == unlike["answer_rate"] == 0.5
    assert alike["answer_rate_error"] == 0.0
    assert unlike["answer_rate_error"] == pytest.approx(0.5)
    assert "answer_rate_error" not in group_metrics([group("1")], 1.0)


def test_votes_are_held_against_truths_where_they_are_known() -> None:
    right = replace(group("1", "1", "2"), truth="1", voted="1", label_source="feedback")
    wrong = replace(group("1", "2", "2"), truth="1", voted="2", label_source="vote")
    silent = replace(group("1", "2", "3"), truth="1")
    metrics = group_metrics([right, wrong, silent, group("9", "9")], 1.0)
    assert metrics["label_accuracy"] == 0.5
    assert metrics["ground_truth_ratio"] == pytest.approx((2 / 3 + 1 / 3 + 1 / 3) / 3)
    assert metrics["num_feedback_labels"] == 1


def test_without_truths_nothing_is_held_against_them() -> None:
    metrics = group_metrics([group("1", "2")], 1.0)
    assert not {"label_accuracy", "ground_truth_ratio"} & metrics.keys()


def test_the_answers_of_the_incumbent_say_nothing_of_the_weights_that_are_learning() -> None:
    mute = replace(group(None, None), truth="1")
    backing = group("1", "1")
    backed = replace(
        mute,
        group=replace(mute.group, incumbent=backing.group.samples),
        samples=(*mute.samples, *backing.samples),
    )
    metrics = group_metrics([backed, backed], 1.0)
    assert metrics["answer_rate"] == metrics["ground_truth_ratio"] == 0.0
    assert metrics["answer_rate_error"] == 0.0
    assert metrics["num_rollouts"] == 8
    assert metrics["num_incumbent_votes"] == 4
