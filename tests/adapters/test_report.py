from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.report import EvaluationReport, ProbeSample, labels_of, report

SAMPLE = st.builds(
    ProbeSample,
    view=st.integers(0, 2),
    answer=st.one_of(st.none(), st.sampled_from("abc")),
    num_tokens=st.integers(0, 50),
    truncated=st.booleans(),
)
PROBE = st.dictionaries(st.sampled_from("pqrs"), st.lists(SAMPLE, max_size=12))
SHARES = ("label_agreement", "view_agreement", "majority_ratio", "answer_rate", "flip_rate")


def _said(
    *answers: str | None, views: Sequence[int] = (), truncated: bool = False
) -> list[ProbeSample]:
    asked = views or [0] * len(answers)
    return [ProbeSample(v, a, 10, truncated) for a, v in zip(answers, asked, strict=True)]


def test_a_report_counts_agreement_with_the_incumbents_labels() -> None:
    probe = {"p": _said("a", "a", "b", None), "q": _said("c", "d", "d", "d"), "r": _said("e", "e")}
    counted = report("v1", probe, {"p": "a", "q": "c", "r": None}, kl=0.25)
    assert counted == EvaluationReport(
        version="v1",
        num_prompts=3,
        num_samples=10,
        label_agreement=0.375,
        view_agreement=None,
        majority_ratio=0.75,
        answer_rate=0.9,
        mean_tokens=10.0,
        flip_rate=0.5,
        kl=0.25,
        agreements={"p": 0.5, "q": 0.25},
    )


def test_a_truncated_sample_has_no_answer() -> None:
    probe = {"p": _said("a", "a", truncated=True) + _said("b")}
    assert labels_of(probe, 1) == {"p": "b"}
    counted = report("v1", probe, {"p": "a"}, kl=None)
    assert counted.label_agreement == 0.0
    assert counted.answer_rate == pytest.approx(1 / 3)


def test_prompts_with_several_views_tell_how_much_they_agree() -> None:
    probe = {
        "p": _said("a", "a", "a", views=[0, 1, 2]),
        "q": _said("a", "a", "b", views=[0, 1, 2]),
        "r": _said("a"),
    }
    counted = report("v1", probe, {}, kl=None)
    assert counted.view_agreement == pytest.approx((1 + 1 / 3) / 2)
    assert counted.view_agreements == {"p": 1.0, "q": pytest.approx(1 / 3)}


def test_a_candidate_that_abstains_has_flipped() -> None:
    probe = {"p": _said("a", "b", views=[0, 1])}
    assert report("v2", probe, {"p": "a"}, kl=None).flip_rate == 1.0


def test_too_few_answers_have_no_label() -> None:
    assert labels_of({"p": _said("a", "a"), "q": []}, 3) == {"p": None, "q": None}


def test_known_truths_are_counted_by_prompt() -> None:
    probe = {"p": _said("a", "a", "b", None), "q": _said("c"), "r": _said("e"), "s": []}
    truths = {"p": "a", "q": "d", "s": "a", "elsewhere": "a"}
    counted = report("v1", probe, {}, kl=None, truths=truths)
    assert counted.accuracies == {"p": 0.5, "q": 0.0}
    assert counted.accuracy == 0.25


def test_a_truncated_sample_is_never_right() -> None:
    counted = report("v1", {"p": _said("a", truncated=True)}, {}, kl=None, truths={"p": "a"})
    assert counted.accuracy == 0.0


def test_without_truths_there_is_no_accuracy() -> None:
    counted = report("v1", {"p": _said("a")}, {}, kl=None, truths={})
    assert counted.accuracy is None
    assert counted.accuracies == {}


def test_an_empty_probe_is_no_evidence() -> None:
    counted = report("v1", {"p": []}, {"p": "a"}, kl=None)
    assert (counted.num_prompts, counted.num_samples, counted.mean_tokens) == (0, 0, 0.0)
    assert counted.label_agreement is None
    assert counted.flip_rate is None
    assert counted.majority_ratio is None


@given(PROBE, st.integers(1, 6))
def test_the_incumbent_never_flips_its_own_labels(
    probe: dict[str, list[ProbeSample]], min_answers: int
) -> None:
    labels = labels_of(probe, min_answers)
    assert report("v0", probe, labels, kl=None).flip_rate in (None, 0.0)


@given(PROBE, st.dictionaries(st.sampled_from("pqrst"), st.sampled_from("abc")))
def test_shares_are_shares(
    probe: dict[str, list[ProbeSample]], labels: dict[str, str | None]
) -> None:
    counted = report("v0", probe, labels, kl=None)
    values = [getattr(counted, name) for name in SHARES]
    assert all(value is None or 0.0 <= value <= 1.0 for value in values)


@given(PROBE, st.randoms(use_true_random=False))
def test_the_order_of_prompts_and_samples_does_not_matter(
    probe: dict[str, list[ProbeSample]], shuffler: random.Random
) -> None:
    labels = labels_of(probe, 1)
    names = list(probe)
    shuffler.shuffle(names)
    shuffled = {name: shuffler.sample(probe[name], len(probe[name])) for name in names}
    assert labels_of(shuffled, 1) == labels
    assert report("v0", shuffled, labels, kl=0.0) == report("v0", probe, labels, kl=0.0)
