"""Label accuracy on questions whose right answer comes in many equivalent forms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.answers import AnswerKind, Equivalence, extract
from adapters.vote import majority

LEAST_ACCURACY = 0.99


@dataclass(frozen=True, slots=True)
class Group:
    truth: str
    responses: Sequence[str]
    is_right: Sequence[bool]


@pytest.fixture(scope="module")
def groups(shared_data: Path) -> list[Group]:
    lines = (shared_data / "answer_groups.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        Group(row["ground_truth"], row["responses"], [bool(x) for x in row["is_ground_truth"]])
        for row in rows
    ]


@pytest.mark.parametrize("kind", ["math", "auto"])
def test_the_majority_class_is_the_right_label(
    equivalence: Equivalence, groups: list[Group], kind: AnswerKind
) -> None:
    right_labels = right_rewards = num_rewards = 0
    for group in groups:
        answers = [extract(response, kind) for response in group.responses]
        truth, *classes = equivalence.classes([group.truth, *answers], kind)
        label = majority(classes, min_answers=1).label
        right_labels += label is not None and label == truth
        rewards = [answer is not None and answer == label for answer in classes]
        right_rewards += sum(r == t for r, t in zip(rewards, group.is_right, strict=True))
        num_rewards += len(rewards)
    assert right_labels / len(groups) >= LEAST_ACCURACY
    assert right_rewards / num_rewards >= LEAST_ACCURACY
