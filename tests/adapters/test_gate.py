from __future__ import annotations

from dataclasses import asdict, fields, replace
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ttrl_client.types import Gate

from adapters.gate import GatePolicy, decide
from adapters.report import EvaluationReport

INCUMBENT = EvaluationReport(
    version="v0",
    num_prompts=16,
    num_samples=384,
    label_agreement=0.40,
    view_agreement=0.90,
    majority_ratio=0.45,
    answer_rate=0.98,
    mean_tokens=40.0,
    flip_rate=0.0,
    kl=0.0,
)
CANDIDATE = replace(
    INCUMBENT, version="v1", label_agreement=0.80, mean_tokens=44.0, flip_rate=0.05, kl=0.1
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
        ({"label_agreement": 0.42}, "label_agreement_gain: 0.0200 < 0.0300"),
        ({"label_agreement": 0.10}, "label_agreement_gain: -0.3000 < 0.0300"),
        ({"label_agreement": None}, "label_agreement: missing"),
        ({"label_agreement": nan}, "label_agreement: nan is not a number"),
        ({"label_agreement": 1.5}, "label_agreement: 1.5000 is not a share"),
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
        ({"label_agreement": None}, "label_agreement: missing"),
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
    bad = replace(CANDIDATE, label_agreement=0.0, flip_rate=1.0, answer_rate=0.0, kl=9.0)
    assert len(decide(bad, INCUMBENT, POLICY).reasons) == 4


def test_a_limit_that_is_met_exactly_is_met() -> None:
    exact = replace(
        CANDIDATE, label_agreement=0.43, flip_rate=0.35, answer_rate=0.93, mean_tokens=80.0, kl=1.0
    )
    assert decide(exact, INCUMBENT, POLICY).promote


def test_labels_without_views_are_trusted_only_on_request() -> None:
    single = replace(INCUMBENT, view_agreement=None)
    assert decide(CANDIDATE, single, replace(POLICY, min_view_agreement=0.0)).promote
    assert not decide(CANDIDATE, single, POLICY).promote


def test_a_disabled_gate_says_so() -> None:
    decision = decide(replace(CANDIDATE, label_agreement=0.0), INCUMBENT, GatePolicy(enabled=False))
    assert decision.promote
    assert decision.reasons == ("gate: disabled",)


@pytest.mark.parametrize(
    "name",
    [f.name for f in fields(GatePolicy) if f.name.startswith(("min_view", "min_gain", "max_"))],
)
def test_a_limit_that_is_not_a_number_promotes_nothing(name: str) -> None:
    assert not decide(CANDIDATE, INCUMBENT, replace(POLICY, **{name: nan})).promote


@given(
    st.fixed_dictionaries(
        {
            "label_agreement": ANY_FLOAT,
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
        assert candidate.label_agreement is not None
        assert 0.42 < candidate.label_agreement <= 1.01
        assert candidate.kl is not None
        assert candidate.kl <= 1.01
