"""The learning rate over a cycle."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from adapters.batch import LearnerConfig

pytestmark = pytest.mark.train

COSINE = LearnerConfig(learning_rate=2.0, schedule="cosine", warmup=0.2, total_updates=20)


def rates(config: LearnerConfig, num_updates: int) -> list[float]:
    from adapters.training.schedule import learning_rate

    return [learning_rate(config, done) for done in range(num_updates)]


def test_the_rate_rises_in_equal_parts_to_its_peak() -> None:
    assert rates(COSINE, 5) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])


def test_the_cosine_passes_its_half_in_the_middle_and_ends_at_zero() -> None:
    found = rates(COSINE, 30)
    assert found[12] == pytest.approx(1.0)
    assert all(later < earlier for earlier, later in itertools.pairwise(found[4:21]))
    assert found[20:] == [0.0] * 10


def test_a_constant_rate_is_the_peak_after_the_warm_up() -> None:
    config = msgspec.structs.replace(COSINE, schedule="constant")
    assert rates(config, 30)[4:] == [2.0] * 26
    assert rates(LearnerConfig(learning_rate=0.5), 3) == [0.5] * 3
