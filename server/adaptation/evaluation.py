"""Incumbent and candidate on the probe: the same prompts, the same seeds, the same labels.

The labels are what the incumbent's views agree on (adapters.report), made once and stored with its
report; the truths, where there are some, were stored with the selection. How far views agree is
measured on version 0: a version that was trained on what its views share agrees with itself, right
or wrong. The candidate's distance to the base model is the k3 estimate of KL(candidate || base), a
token at a time, on its own samples (http://joschu.net/blog/kl-approx.html).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import exp, fsum
from typing import Any

from ttrl_client.types import CyclePhase

from adapters.gate import GateDecision, GatePolicy, decide, foreseen
from adapters.report import EvaluationReport, ProbeSample, labels_of, report
from server.adaptation.judging import answer_classes, train_sample
from server.adaptation.learner import Checkpoint
from server.adaptation.prompt import Prompt
from server.adaptation.run import Run, enter
from server.adaptation.sampler import Policy
from server.adaptation.sampling import Sample, SampledGroup, sample_groups
from server.adaptation.selection import Selection
from server.adaptation.tracing import entered
from server.answers import spec_of
from server.db.cycles import update_fenced
from server.tenants import identity_ref

KL_SAMPLES = 64
MAX_LOG_RATIO = 20.0  # beyond it, a single token would overflow the mean
NO_CANDIDATE = "not_trained: no candidate could pass the gate"

Labels = Mapping[str, str | None]
Truths = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Baseline:
    """The incumbent's report, the labels that it gives to the probe, and the truths that are known
    of it.
    """

    report: EvaluationReport
    labels: Labels
    truths: Truths


async def measure_incumbent(run: Run, selection: Selection) -> Baseline:
    """The incumbent on the probe: the stored baseline, or a new one that is stored first."""
    probe, truths = selection.probe, selection.truths
    if run.incumbent_report is not None:
        stored = run.incumbent_report
        return Baseline(_from_json(stored), stored["labels"], truths)
    entered("baseline")
    policy = Policy(run.incumbent.engine_name, run.incumbent.path)
    groups = await _sample_probe(run, policy, probe)
    answered = await asyncio.to_thread(_probe_samples, run, groups, {}, truths)
    labels = labels_of(answered, run.settings.learning.min_answers)
    made = report(run.incumbent.label, answered, labels, kl=None, truths=truths)
    if run.incumbent.number != 0:
        made = replace(made, **await _untrained_agreement(run, probe))
    async with run.tools.database.transaction() as session:
        await update_fenced(
            session,
            run.lease,
            incumbent_report={**asdict(made), "labels": labels},
            phase=CyclePhase.TRAIN.value,
        )
    return Baseline(made, labels, truths)


async def _untrained_agreement(run: Run, probe: Sequence[Prompt]) -> dict[str, Any]:
    """How far version 0's views agree, as the report's fields."""
    untrained = identity_ref(run.tenant, run.tools.identity_dir)
    groups = await _sample_probe(run, Policy(untrained.engine_name, untrained.path), probe)
    answered = await asyncio.to_thread(_probe_samples, run, groups, {}, {})
    made = report(untrained.label, answered, {}, kl=None)
    return {"view_agreement": made.view_agreement, "view_agreements": made.view_agreements}


def refusal(run: Run, baseline: Baseline) -> tuple[str, ...]:
    """Why there is no use in learning: the gate would refuse whatever comes of it. Else empty."""
    reasons = foreseen(baseline.report, GatePolicy(**run.settings.gate.model_dump()))
    return (NO_CANDIDATE, *reasons) if reasons else ()


async def measure_candidate(
    run: Run, checkpoint: Checkpoint, probe: Sequence[Prompt], baseline: Baseline
) -> EvaluationReport:
    """What the cycle came to on the probe, against the incumbent's labels and the same truths."""
    if run.decision is not None and run.candidate_report is not None:
        return _from_json(run.candidate_report)
    await enter(run, CyclePhase.EVALUATE)
    groups = await _sample_probe(run, checkpoint.policy, probe)
    answered = await asyncio.to_thread(
        _probe_samples, run, groups, baseline.labels, baseline.truths
    )
    kl = await _kl_to_base(run, checkpoint, groups)
    name = f"{run.tenant}--c{run.lease.cycle_id}"
    return report(name, answered, baseline.labels, kl=kl, truths=baseline.truths)


async def decide_and_store(
    run: Run, candidate: EvaluationReport, baseline: Baseline, remarks: Sequence[str] = ()
) -> GateDecision:
    """The gate's verdict, stored with the numbers that it rests on; `remarks` come before its
    reasons.
    """
    if run.decision is not None:
        return GateDecision(run.decision == "promoted", tuple(run.reasons))
    policy = GatePolicy(**run.settings.gate.model_dump())
    verdict = decide(candidate, baseline.report, policy)
    verdict = GateDecision(verdict.promote, (*remarks, *verdict.reasons))
    async with run.tools.database.transaction() as session:
        await update_fenced(
            session,
            run.lease,
            candidate_report=asdict(candidate),
            decision="promoted" if verdict.promote else "rejected",
            reasons=list(verdict.reasons),
            phase=CyclePhase.PUBLISH.value,
        )
    return verdict


async def _sample_probe(
    run: Run, policy: Policy, probe: Sequence[Prompt]
) -> tuple[SampledGroup, ...]:
    num_samples = run.settings.gate.samples_per_prompt
    sampled = await sample_groups(run, policy, probe, num_samples=num_samples, occasion="probe")
    return sampled.groups


def _probe_samples(
    run: Run, groups: Sequence[SampledGroup], labels: Labels, truths: Truths
) -> dict[str, list[ProbeSample]]:
    """By fingerprint. Answers that equal the prompt's label or truth have its name. Blocking:
    answers are compared.
    """
    answered: dict[str, list[ProbeSample]] = {}
    for group in groups:
        fingerprint = group.prompt.fingerprint
        names = (truths.get(fingerprint), labels.get(fingerprint))
        answers = answer_classes(
            group.samples,
            run.tools.judge,
            spec_of(run.settings),
            known=[name for name in names if name is not None],
        )
        answered[fingerprint] = [
            ProbeSample(s.view, answer, len(s.completion.token_ids), s.truncated)
            for s, answer in zip(group.samples, answers, strict=True)
        ]
    return answered


async def _kl_to_base(
    run: Run, checkpoint: Checkpoint, groups: Sequence[SampledGroup]
) -> float | None:
    """Nats a token; None without samples."""
    samples = [train_sample(sample) for sample in spread(groups, KL_SAMPLES)]
    if not samples:
        return None
    scores = await run.learner.score(checkpoint, samples)
    tokens = [
        k3(adapter, base)
        for adapters, bases in zip(scores.adapter, scores.base, strict=True)
        for adapter, base in zip(adapters, bases, strict=True)
    ]
    return fsum(tokens) / len(tokens) if tokens else None


def k3(policy: float, reference: float) -> float:
    """KL(policy || reference) estimated from one token's log-probabilities; never negative."""
    log_ratio = min(reference - policy, MAX_LOG_RATIO)
    return exp(log_ratio) - log_ratio - 1


def spread(groups: Sequence[SampledGroup], limit: int) -> list[Sample]:
    """At most `limit` samples: the first of every group, then the second, ..."""
    longest = max((len(group.samples) for group in groups), default=0)
    ordered = (g.samples[i] for i in range(longest) for g in groups if i < len(g.samples))
    return [sample for sample, _ in zip(ordered, range(limit), strict=False)]


def _from_json(stored: Mapping[str, Any]) -> EvaluationReport:
    """A stored report; one of an older server lacks the newest fields, which have defaults."""
    names = [field.name for field in fields(EvaluationReport)]
    return EvaluationReport(**{name: stored[name] for name in names if name in stored})
