from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ttrl_client.types import Gate

from adapters.gate import GatePolicy, decide, foreseen
from adapters.report import EvaluationReport

PROMPTS = [f"q{number}" for number in range(16)]


def agreeing(share: float) -> dict[str, Any]:
    """What a report says when each label has this share."""
    return {"label_agreement": share, "agreements": dict.fromkeys(PROMPTS, share)}


INCUMBENT = EvaluationReport(
    version="v0",
    num_prompts=16,
    num_samples=384,
    **agreeing(0.40),
    view_agreement=0.90,
    view_agreements=dict.fromkeys(PROMPTS, 0.90),
    majority_ratio=0.45,
    answer_rate=0.98,
    mean_tokens=40.0,
    flip_rate=0.0,
    kl=0.0,
)
CANDIDATE = replace(
    INCUMBENT, version="v1", **agreeing(0.80), mean_tokens=44.0, flip_rate=0.05, kl=0.1
)
POLICY = GatePolicy()
ANY_FLOAT = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


def test_the_policy_mirrors_the_wire_type() -> None:
    wire = Gate()
    assert asdict(POLICY) == wire.model_dump()


def test_a_better_candidate_is_promoted_without_reasons() -> None:
    decision = decide(CANDIDATE, INCUMBENT, POLICY)
    assert decision.promote
    assert decision.reasons == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (agreeing(0.42), "label_agreement_gain: 0.0200 < 0.0300"),
        (agreeing(0.10), "label_agreement_gain: -0.3000 < 0.0300"),
        ({"agreements": {}}, "agreements: of 0 prompts, other ones than before"),
        (agreeing(nan), "agreement: nan is not a number"),
        (agreeing(1.5), "agreement: 1.5000 is not a share"),
        ({"flip_rate": 0.36}, "flip_rate: 0.3600 > 0.3500"),
        ({"flip_rate": None}, "flip_rate: missing"),
        ({"flip_rate": nan}, "flip_rate: nan is not a number"),
        ({"answer_rate": 0.90}, "answer_rate_drop: 0.0800 > 0.0500"),
        ({"answer_rate": nan}, "answer_rate: nan is not a number"),
        ({"mean_tokens": 81.0}, "mean_tokens_ratio: 2.0250 > 2.0000"),
        ({"mean_tokens": 19.0}, "mean_tokens_ratio: 0.4750 < 0.5000"),
        ({"mean_tokens": 0.0}, "mean_tokens: 0.0 against 40.0 is no evidence"),
        ({"mean_tokens": inf}, "mean_tokens: inf against 40.0 is no evidence"),
        ({"kl": 1.01}, "kl: 1.0100 > 1.0000"),
        ({"kl": None}, "kl: missing"),
        ({"kl": nan}, "kl: nan is not a number"),
        ({"kl": -0.5}, "kl: -0.5000 < 0"),
        ({"num_prompts": 15}, "num_prompts: 15 != 16 of the incumbent"),
    ],
)
def test_a_candidate_that_fails_one_condition_is_rejected_for_it(
    changes: dict[str, Any], reason: str
) -> None:
    decision = decide(replace(CANDIDATE, **changes), INCUMBENT, POLICY)
    assert not decision.promote
    assert decision.reasons == (reason,)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"view_agreement": 0.21}, "view_agreement: 0.2100 < 0.7000"),
        ({"view_agreement": None}, "view_agreement: missing"),
        ({"view_agreement": nan}, "view_agreement: nan is not a number"),
        ({"agreements": {}}, "labels: 0 < 8"),
        ({"view_agreements": {"q0": 0.9}}, "labels: 1 < 8"),
        ({"mean_tokens": 0.0}, "mean_tokens: 44.0 against 0.0 is no evidence"),
    ],
)
def test_labels_that_cannot_be_trusted_reject_any_candidate(
    changes: dict[str, Any], reason: str
) -> None:
    decision = decide(CANDIDATE, replace(INCUMBENT, **changes), POLICY)
    assert not decision.promote
    assert decision.reasons == (reason,)


def test_the_candidates_own_view_agreement_does_not_count() -> None:
    assert decide(replace(CANDIDATE, view_agreement=None), INCUMBENT, POLICY).promote
    sure = decide(
        replace(CANDIDATE, view_agreement=1.0), replace(INCUMBENT, view_agreement=0.2), POLICY
    )
    assert not sure.promote


def test_too_small_a_probe_is_no_evidence() -> None:
    few = {"num_prompts": 7}
    decision = decide(replace(CANDIDATE, **few), replace(INCUMBENT, **few), POLICY)
    assert decision.reasons == ("num_prompts: 7 < 8",)


def test_every_condition_that_fails_is_named() -> None:
    bad = replace(CANDIDATE, **agreeing(0.0), flip_rate=1.0, answer_rate=0.0, kl=9.0)
    assert len(decide(bad, INCUMBENT, POLICY).reasons) == 4


def test_a_limit_that_is_met_exactly_is_met() -> None:
    exact = replace(
        CANDIDATE,
        **agreeing(0.43),
        flip_rate=0.35,
        answer_rate=0.93,
        mean_tokens=80.0,
        kl=1.0,
    )
    assert decide(exact, INCUMBENT, POLICY).promote


def test_labels_without_views_are_trusted_only_on_request() -> None:
    single = replace(INCUMBENT, view_agreement=None, view_agreements={})
    assert decide(CANDIDATE, single, replace(POLICY, min_view_agreement=0.0)).promote
    assert decide(CANDIDATE, single, POLICY).reasons == (
        "view_agreement: missing",
        "labels: 0 < 8",
    )


def test_labels_without_views_back_no_gain_where_others_have_them() -> None:
    """Else a few easy prompts with views would vouch for all the others."""
    backed = dict.fromkeys(PROMPTS[:8], 0.9)
    incumbent = replace(INCUMBENT, view_agreements=backed)
    gains = {prompt: 0.4 if prompt in backed else 1.0 for prompt in PROMPTS}
    decision = decide(replace(CANDIDATE, agreements=gains), incumbent, POLICY)
    assert decision.reasons == ("label_agreement_gain: 0.0000 < 0.0300",)
    few = replace(INCUMBENT, view_agreements=dict.fromkeys(PROMPTS[:7], 0.9))
    assert decide(CANDIDATE, few, POLICY).reasons == ("labels: 7 < 8",)


def test_two_probes_of_one_size_are_not_one_probe() -> None:
    others = {f"r{number}": 0.8 for number in range(16)}
    decision = decide(replace(CANDIDATE, agreements=others), INCUMBENT, POLICY)
    assert decision.reasons == ("agreements: of 16 prompts, other ones than before",)


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, ()),
        ({"view_agreement": 0.21}, ("view_agreement: 0.2100 < 0.7000",)),
        ({"view_agreements": {"q0": 0.9}}, ("labels: 1 < 8",)),
        (agreeing(0.98), ("label_agreement_gain: 0.0200 < 0.0300",)),
        ({"num_prompts": 7}, ("num_prompts: 7 < 8",)),
        ({"answer_rate": nan}, ("answer_rate: nan is not a number",)),
        ({"answer_rate": 0.0}, ()),
        ({"view_agreement": 0.21, "accuracies": dict.fromkeys(PROMPTS, 0.4)}, ()),
    ],
)
def test_what_refuses_every_candidate_is_foreseen(
    changes: dict[str, Any], reasons: tuple[str, ...]
) -> None:
    assert foreseen(replace(INCUMBENT, **changes), POLICY) == reasons


def test_a_disabled_gate_foresees_nothing() -> None:
    hopeless = replace(INCUMBENT, view_agreement=0.0)
    assert foreseen(hopeless, GatePolicy(enabled=False)) == ()


SHARE = st.floats(0.0, 1.0)
SHARES = st.lists(SHARE, min_size=16, max_size=16)


@given(
    after=st.tuples(SHARES, SHARE, SHARE, SHARES),
    before=st.tuples(SHARES, SHARE, SHARE, SHARES),
    trust=SHARE,
    num_truths=st.sampled_from([0, 6, 16]),
)
def test_where_refusal_is_foreseen_no_candidate_is_promoted(
    after: tuple[list[float], float, float, list[float]],
    before: tuple[list[float], float, float, list[float]],
    trust: float,
    num_truths: int,
) -> None:
    def answering(agreements: list[float], rate: float, kl: float, right: list[float]) -> Any:
        return {
            "agreements": dict(zip(PROMPTS, agreements, strict=True)),
            "accuracies": dict(zip(PROMPTS[:num_truths], right, strict=False)),
            "answer_rate": rate,
            "kl": kl,
        }

    incumbent = replace(INCUMBENT, view_agreement=trust, **answering(*before))
    candidate = replace(CANDIDATE, **answering(*after))
    assert not (foreseen(incumbent, POLICY) and decide(candidate, incumbent, POLICY).promote)


def test_a_disabled_gate_says_so() -> None:
    decision = decide(replace(CANDIDATE, **agreeing(0.0)), INCUMBENT, GatePolicy(enabled=False))
    assert decision.promote
    assert decision.reasons == ("gate: disabled",)


@pytest.mark.parametrize(
    "name",
    [
        f.name
        for f in fields(GatePolicy)
        if f.name.startswith(("min_view", "min_gain", "max_")) and "accuracy" not in f.name
    ],
)
def test_a_limit_that_is_not_a_number_promotes_nothing(name: str) -> None:
    assert not decide(CANDIDATE, INCUMBENT, replace(POLICY, **{name: nan})).promote


def _knowing(
    before: Sequence[float], after: Sequence[float], **changes: Any
) -> tuple[EvaluationReport, EvaluationReport]:
    """Candidate and incumbent with these accuracies; whatever else says nothing for a gain."""
    names = [f"p{number}" for number in range(len(before))]
    blind = replace(CANDIDATE, **agreeing(0.0), flip_rate=1.0)
    return (
        replace(blind, accuracies=dict(zip(names, after, strict=True)), **changes),
        replace(INCUMBENT, accuracies=dict(zip(names, before, strict=True))),
    )


BEFORE = [0.1, 0.2, 0.5, 0.7] * 8


def test_with_truths_accuracy_decides_and_votes_do_not() -> None:
    better = _knowing(BEFORE, [value + 0.2 for value in BEFORE])
    assert decide(*better, POLICY).reasons == ()
    candidate, incumbent = _knowing(BEFORE, [value - 0.05 for value in BEFORE])
    sure = replace(candidate, **agreeing(1.0), flip_rate=0.0)
    assert decide(sure, incumbent, POLICY).reasons == (
        "accuracy_gain: -0.0500 < 0.0000",
        "accuracy_gain_bound: -0.0500 < -0.0300",
    )


def test_a_gain_that_chance_explains_is_none() -> None:
    lucky = [0.9 if number % 4 else 0.0 for number in range(16)]
    decision = decide(*_knowing([0.6] * 16, lucky), POLICY)
    assert [reason.split(":")[0] for reason in decision.reasons] == ["accuracy_gain_bound"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer_rate": 0.90}, "answer_rate_drop: 0.0800 > 0.0500"),
        ({"mean_tokens": 81.0}, "mean_tokens_ratio: 2.0250 > 2.0000"),
        ({"kl": None}, "kl: missing"),
        ({"num_prompts": 15}, "num_prompts: 15 != 16 of the incumbent"),
    ],
)
def test_truths_excuse_no_collapse(changes: dict[str, Any], reason: str) -> None:
    pair = _knowing(BEFORE, [value + 0.2 for value in BEFORE], **changes)
    assert decide(*pair, POLICY).reasons == (reason,)


def test_few_truths_veto_and_do_not_decide() -> None:
    candidate, incumbent = _knowing([0.5] * 8, [0.3] * 8, **agreeing(0.8), flip_rate=0.0)
    decision = decide(candidate, incumbent, POLICY)
    assert decision.reasons == ("accuracy_gain_bound: -0.2000 < -0.0300",)
    blind, incumbent = _knowing([0.5] * 8, [0.9] * 8)
    assert not decide(blind, incumbent, POLICY).promote


def test_four_truths_say_nothing() -> None:
    candidate, incumbent = _knowing([0.5] * 4, [0.3] * 4, **agreeing(0.8), flip_rate=0.0)
    assert decide(candidate, incumbent, POLICY).promote
    assert decide(candidate, incumbent, replace(POLICY, min_truths=0)).promote


def test_accuracies_of_other_prompts_are_no_evidence() -> None:
    candidate, incumbent = _knowing(BEFORE, [0.9] * 32)
    fewer = replace(candidate, accuracies={"p0": 0.9})
    assert decide(fewer, incumbent, POLICY).reasons == (
        "accuracies: of 1 prompts, other ones than 32 before",
    )
    assert not decide(candidate, replace(incumbent, accuracies={}), POLICY).promote


@pytest.mark.parametrize("broken", [nan, inf, -0.1, 1.1])
def test_an_accuracy_that_is_no_share_is_no_evidence(broken: float) -> None:
    candidate, incumbent = _knowing(BEFORE, [0.9] * 31 + [broken])
    assert not decide(candidate, incumbent, POLICY).promote
    candidate, incumbent = _knowing([*BEFORE[:31], broken], [0.9] * 32)
    assert not decide(candidate, incumbent, POLICY).promote


@pytest.mark.parametrize("name", ["min_accuracy_gain", "max_accuracy_loss"])
def test_a_limit_of_accuracy_that_is_not_a_number_promotes_nothing(name: str) -> None:
    pair = _knowing(BEFORE, [0.9] * 32)
    assert not decide(*pair, replace(POLICY, **{name: nan})).promote


PAIRS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=5, max_size=20)


@settings(max_examples=50)
@given(PAIRS, st.data())
def test_a_more_correct_candidate_is_never_worse_off(
    pairs: list[tuple[float, float]], data: st.DataObject
) -> None:
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    better = [data.draw(st.floats(value, 1)) for value in after]
    policy = replace(POLICY, min_truths=data.draw(st.sampled_from([5, 16])))
    evidence = {**agreeing(0.8), "flip_rate": 0.0}
    worse_is_in = decide(*_knowing(before, after, **evidence), policy).promote
    if worse_is_in:
        assert decide(*_knowing(before, better, **evidence), policy).promote


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=16, max_size=32))
def test_truths_promote_no_candidate_that_lost(pairs: list[tuple[float, float]]) -> None:
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    if decide(*_knowing(before, after), POLICY).promote:
        assert sum(after) >= sum(before) - 1e-6


def test_numbers_too_large_to_add_are_refused() -> None:
    candidate = replace(CANDIDATE, agreements=dict.fromkeys(PROMPTS, 1.7e308))
    decision = decide(candidate, INCUMBENT, POLICY)
    assert any(reason.startswith("agreement: ") for reason in decision.reasons)


@given(
    st.fixed_dictionaries(
        {
            "agreements": st.fixed_dictionaries(
                {prompt: st.floats(allow_nan=True) for prompt in PROMPTS}
            ),
            "view_agreement": ANY_FLOAT,
            "flip_rate": ANY_FLOAT,
            "kl": ANY_FLOAT,
            "answer_rate": st.floats(allow_nan=True),
            "mean_tokens": st.floats(allow_nan=True),
        }
    )
)
def test_no_promotion_without_evidence_of_a_gain(changes: dict[str, Any]) -> None:
    candidate = replace(CANDIDATE, **changes)
    decision = decide(candidate, INCUMBENT, POLICY)
    assert decision.promote == (not decision.reasons)
    if decision.promote:
        gains = [candidate.agreements[prompt] - 0.40 for prompt in PROMPTS]
        assert 0.02 < sum(gains) / len(gains) <= 0.61
        assert candidate.kl is not None
        assert candidate.kl <= 1.01
