"""From sampled texts to advantages, by a tenant's settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from ttrl_client.types import TenantSettings

from adapters.answers import AnswerSpec, Equivalence
from adapters.estimators import Visit
from adapters.estimators.backed import UNBACKED
from adapters.estimators.steady import FLIPPED
from server.adaptation.groups import Sample, SampledGroup
from server.adaptation.judging import (
    REFUSED,
    UNANIMOUS,
    UNJUDGED,
    JudgedGroup,
    Past,
    answer_classes,
    judge_groups,
)
from server.adaptation.prompt import Prompt
from server.engine.client import Completion
from tests.fakes.defects import break_on


@pytest.fixture
def judge() -> Iterator[Equivalence]:
    with Equivalence() as judge:
        yield judge


def group(*texts: str, truncated: int = 0, **more: Any) -> SampledGroup:
    """Samples of these texts; the last `truncated` of them were cut off."""
    prompt = Prompt("q", "f", [{"role": "user", "content": "x"}])
    reasons = ["stop"] * (len(texts) - truncated) + ["length"] * truncated
    samples = tuple(
        Sample(0, [1], Completion([1, 2], [-1.0, -1.0], text, reason))
        for text, reason in zip(texts, reasons, strict=True)
    )
    return SampledGroup(prompt, samples, **more)


def judged(
    judge: Equivalence,
    drawn: SampledGroup,
    visits: list[Visit] | None = None,
    truth: str | None = None,
    first: str | None = None,
    **learning: Any,
) -> JudgedGroup:
    settings = TenantSettings.model_validate(
        {"answer": "math", "learning": {"min_answers": 1, **learning}}
    )
    truths = {} if truth is None else {"f": truth}
    past = {"f": Past(visits or [], first)}
    (found,) = judge_groups([drawn], judge, settings, past, truths, seed=1)
    return found


HALVES = (
    r"\boxed{\frac{1}{2}}",
    r"\boxed{\frac{2}{4}}",
    r"\boxed{3}",
    r"\boxed{3}",
    r"\boxed{\frac{3}{6}}",
)


def advantages(found: JudgedGroup) -> list[float | None]:
    return [sample.advantage for sample in found.samples]


def test_equal_answers_vote_together(judge: Equivalence) -> None:
    found = judged(judge, group(*HALVES))
    assert found.vote.label == found.samples[0].answer
    assert advantages(found) == pytest.approx([0.4, 0.4, -0.6, -0.6, 0.4])


def test_the_published_vote_splits_over_spellings(judge: Equivalence) -> None:
    found = judged(judge, group(*HALVES), estimator="majority_strict")
    assert found.vote.label == "3"
    assert advantages(found) == pytest.approx([-0.4, -0.4, 0.6, 0.6, -0.4])


def test_the_published_vote_reads_the_last_number_of_a_text(judge: Equivalence) -> None:
    texts = ("first 4 and then 7", "it is 7 I think", r"\boxed{8}")
    assert judged(judge, group(*texts)).vote.label == "8"
    assert judged(judge, group(*texts), estimator="majority_strict").vote.label == "7"


def test_a_truncated_sample_neither_votes_nor_teaches(judge: Equivalence) -> None:
    found = judged(judge, group(r"\boxed{1}", r"\boxed{2}", r"\boxed{2}", truncated=1))
    assert [sample.reward for sample in found.samples] == [1.0, 0.0, None]
    assert advantages(found) == [0.5, -0.5, None]


def test_a_unanimous_group_teaches_nothing(judge: Equivalence) -> None:
    found = judged(judge, group(r"\boxed{1}", r"\boxed{1}"))
    assert (found.reason, advantages(found)) == (UNANIMOUS, [None, None])
    assert found.train_samples() == []


def test_a_group_that_a_defect_keeps_from_being_judged_says_so_and_teaches_nothing(
    judge: Equivalence, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_on(monkeypatch, "canonical", "666")
    groups = [group(r"\boxed{666}", r"\boxed{1}"), group(*HALVES)]
    settings = TenantSettings.model_validate({"answer": "math", "learning": {"min_answers": 1}})
    one, other = judge_groups(groups, judge, settings, {}, {"f": "3"}, seed=1)
    assert (one.reason, one.vote.label, one.label_source) == (UNJUDGED, None, None)
    assert (one.train_samples(), len(one.record().rollouts)) == ([], 2)
    assert len(other.train_samples()) == len(HALVES)


def test_answers_that_a_defect_keeps_from_being_compared_are_none(
    judge: Equivalence, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_on(monkeypatch, "canonical", "666")
    samples = group(r"\boxed{666}", r"\boxed{1}").samples
    assert answer_classes(samples, judge, AnswerSpec("math")) == [None, None]


def test_a_refused_prompt_says_so(judge: Equivalence) -> None:
    assert judged(judge, group(refused=True)).reason == REFUSED


def test_only_so_many_samples_are_trained_on(judge: Equivalence) -> None:
    texts = [r"\boxed{1}"] * 6 + [r"\boxed{2}"] * 2
    found = judged(judge, group(*texts), train_samples=4)
    assert advantages(found) == [0.25, 0.25, None, None, None, None, -0.75, -0.75]
    assert len(found.train_samples()) == 4


def test_the_guard_weighs_a_label_that_flipped(judge: Equivalence) -> None:
    texts = (r"\boxed{1}", r"\boxed{2}", r"\boxed{1}", r"\boxed{2}", r"\boxed{1}")
    plain = judged(judge, group(*texts))
    guarded = judged(judge, group(*texts), [Visit("2", 0.5)], guard=True, steady=False)
    assert advantages(guarded) == pytest.approx([(a or 0.0) / 2 for a in advantages(plain)])


def test_a_label_that_turned_is_stored_and_not_trained_on(judge: Equivalence) -> None:
    visits = [Visit("2", 0.9), Visit(None, 0.2)]
    turned = judged(judge, group(r"\boxed{1}", r"\boxed{2}", r"\boxed{1}"), visits)
    assert (turned.reason, turned.record().label) == (FLIPPED, "1")
    assert turned.train_samples() == []


def test_a_label_that_is_not_the_cycles_first_one_is_not_trained_on(judge: Equivalence) -> None:
    ones = group(r"\boxed{1}", r"\boxed{2}", r"\boxed{1}")
    visits = [Visit("2", 0.9), Visit("1", 0.9)]
    assert judged(judge, ones, visits, first="2").reason == FLIPPED
    assert judged(judge, ones, visits, first="1").reason is None
    assert judged(judge, ones, visits).reason is None  # none in this cycle: the last one counts
    assert judged(judge, ones, visits, first="1/1").reason is None


def sampled(*texts: str, incumbent: tuple[str, ...]) -> SampledGroup:
    return replace(group(*texts), incumbent=group(*incumbent).samples)


def test_the_incumbent_votes_and_is_not_trained_on(judge: Equivalence) -> None:
    found = judged(judge, sampled(r"\boxed{1}", r"\boxed{2}", incumbent=(r"\boxed{2}",) * 2))
    assert (found.reason, found.vote.label) == (None, "2")
    assert [sample.answer for sample in found.samples] == ["1", "2", "2", "2"]
    assert [sample.reward for sample in found.samples] == [0.0, 1.0, None, None]
    assert advantages(found) == [-0.5, 0.5, None, None]
    assert len(found.record().rollouts) == 4
    assert len(found.train_samples()) == 2


def test_a_label_that_the_incumbent_does_not_give_is_none(judge: Equivalence) -> None:
    texts = (r"\boxed{1}",) * 3 + (r"\boxed{2}",)
    found = judged(judge, sampled(*texts, incumbent=(r"\boxed{2}", r"\boxed{3}")))
    assert (found.reason, found.record().label, found.train_samples()) == (UNBACKED, None, [])
    again = judged(judge, sampled(*texts, incumbent=(r"\boxed{\frac{2}{2}}", r"\boxed{3}")))
    assert (again.reason, again.vote.label) == (None, "1")


def test_a_truth_needs_no_backing(judge: Equivalence) -> None:
    texts = (r"\boxed{1}",) * 3 + (r"\boxed{2}",)
    found = judged(judge, sampled(*texts, incumbent=(r"\boxed{2}",)), truth="1")
    assert (found.reason, found.vote.label) == (None, "1")


def test_a_defect_in_the_incumbents_answers_ends_no_cycle(
    judge: Equivalence, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_on(monkeypatch, "canonical", "36")
    found = judged(judge, sampled(r"\boxed{1}", incumbent=(r"\boxed{36}",)))
    assert (found.reason, len(found.record().rollouts)) == (UNJUDGED, 2)


def test_the_same_label_in_another_spelling_has_not_turned(judge: Equivalence) -> None:
    texts = (r"\boxed{\frac12}", r"\boxed{3}", r"\boxed{0.5}")
    found = judged(judge, group(*texts), [Visit("1/2", 0.9)])
    assert (found.reason, found.vote.label) == (None, "1/2")


@pytest.mark.parametrize("steady", [True, False])
def test_a_label_flips_against_the_last_one_that_there_was(
    judge: Equivalence, steady: bool
) -> None:
    ones = group(r"\boxed{1}", r"\boxed{2}", r"\boxed{1}")
    turned = judged(
        judge, ones, [Visit("1", 0.5), Visit("7", 0.5), Visit(None, 0.2)], steady=steady
    )
    stayed = judged(judge, ones, [Visit("7", 0.5), Visit("1", 0.5)], steady=steady)
    assert (turned.flipped, stayed.flipped) == (True, False)


def test_the_same_answer_in_other_words_is_no_flip(judge: Equivalence) -> None:
    texts = (r"\boxed{0.5}", r"\boxed{3}", r"\boxed{0.5}")
    visits = [Visit(r"\frac{1}{2}", 0.5)]
    assert judged(judge, group(*texts), visits).flipped is False
    (truth,) = judge.classes(["0.5"], "math")
    assert judged(judge, group(*texts), visits, truth).flipped is False


def test_first_visits_and_abstentions_are_no_flips(judge: Equivalence) -> None:
    ones = group(r"\boxed{1}", r"\boxed{1}")
    assert judged(judge, ones).flipped is None
    assert judged(judge, ones, [Visit(None, 0.2)]).flipped is None
    assert judged(judge, ones, [Visit("1", 0.5)], min_answers=8).flipped is None


def test_served_answers_vote_and_are_not_trained_on(judge: Equivalence) -> None:
    served = (r"\boxed{2}", r"\boxed{2}")
    found = judged(judge, group(r"\boxed{1}", r"\boxed{2}", r"\boxed{1}", served=served))
    assert found.vote.label == "2"
    assert len(found.samples) == 3
    assert len(found.train_samples()) == 3


def test_a_known_truth_is_the_label_whatever_was_voted(judge: Equivalence) -> None:
    found = judged(judge, group(*HALVES), truth="3")
    assert (found.vote.label, found.vote.majority_ratio) == ("3", 0.4)
    assert (found.voted, found.truth, found.label_source) == (
        found.samples[0].answer,
        "3",
        "feedback",
    )
    assert advantages(found) == pytest.approx([-0.4, -0.4, 0.6, 0.6, -0.4])
    assert found.record().label_source == "feedback"


def test_answers_equal_to_the_truth_are_right_in_any_spelling(judge: Equivalence) -> None:
    texts = (r"\boxed{\frac{\sqrt{3}}{3}}", r"\boxed{0}", r"\boxed{\frac{1}{\sqrt{3}}}")
    (truth,) = judge.classes([r"\frac{1}{\sqrt{3}}"], "math")
    found = judged(judge, group(*texts), truth=truth)
    assert [sample.reward for sample in found.samples] == [1.0, 0.0, 1.0]


THIRD = (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}")


@pytest.mark.parametrize(("truth", "before"), [THIRD, THIRD[::-1]])
def test_a_truth_names_answers_that_earlier_visits_spelt_otherwise(
    judge: Equivalence, truth: str, before: str
) -> None:
    texts = [rf"\boxed{{{answer}}}" for answer in (truth, before, "0")]
    found = judged(judge, group(*texts), [Visit(before, 0.9)], truth=truth)
    assert [sample.reward for sample in found.samples] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(("truth", "before"), [THIRD, THIRD[::-1]])
def test_a_label_that_equals_a_truth_in_another_spelling_has_not_turned(
    judge: Equivalence, truth: str, before: str
) -> None:
    texts = [rf"\boxed{{{answer}}}" for answer in (before, before, "0")]
    visits = [Visit(truth, 0.9), Visit(before, 0.9)]
    found = judged(judge, group(*texts), visits, truth=truth, use_feedback=False, guard=True)
    assert (found.reason, found.vote.label) == (None, truth)
    unguarded = judged(judge, group(*texts), visits, truth=truth, use_feedback=False)
    assert advantages(found) == advantages(unguarded)


def test_a_truth_labels_where_the_vote_abstains(judge: Equivalence) -> None:
    found = judged(judge, group(r"\boxed{1}", r"\boxed{2}"), truth="2", min_answers=8)
    assert (found.voted, found.vote.label, found.reason) == (None, "2", None)


def test_a_truth_that_no_sample_found_teaches_nothing(judge: Equivalence) -> None:
    found = judged(judge, group(r"\boxed{1}", r"\boxed{2}"), truth="3")
    assert (found.vote.label, found.vote.majority_ratio, found.reason) == ("3", 0.0, UNANIMOUS)


def test_a_group_without_answers_has_no_label_in_spite_of_a_truth(judge: Equivalence) -> None:
    found = judged(judge, group("hm", r"\boxed{3}", truncated=1), truth="3")
    assert (found.vote.label, found.reason, found.label_source) == (None, "no_answer", None)


def test_the_guard_has_no_say_over_a_truth(judge: Equivalence) -> None:
    texts = (r"\boxed{1}", r"\boxed{2}", r"\boxed{1}")
    plain = judged(judge, group(*texts), [Visit("2", 0.5)], truth="1")
    guarded = judged(judge, group(*texts), [Visit("2", 0.5)], truth="1", guard=True)
    assert advantages(guarded) == advantages(plain)


@pytest.mark.parametrize("estimator", ["harmony", "majority_strict", "soft", "selective"])
def test_rewards_against_a_truth_are_the_same_for_every_estimator(
    judge: Equivalence, estimator: str
) -> None:
    found = judged(judge, group(*HALVES), truth="3", estimator=estimator)
    assert [sample.reward for sample in found.samples] == [0.0, 0.0, 1.0, 1.0, 0.0]


def test_a_truth_is_only_looked_at_where_the_tenant_wants_its_votes(judge: Equivalence) -> None:
    found = judged(judge, group(*HALVES), truth="3", use_feedback=False)
    assert (found.vote.label, found.label_source) == (found.samples[0].answer, "vote")
    assert (found.truth, found.voted) == ("3", found.vote.label)
