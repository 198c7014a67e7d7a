"""How one adapter version does on the probe: the held-out prompts of its tenant.

Both versions are measured against one set of labels, the incumbent's: `labels_of` makes them once,
`report` counts. Where the truth of some prompts is known (by feedback), their accuracy is counted
too. A truncated sample has no answer, whatever its text says. Answers must be class
representatives that are comparable between versions: pass the truth and the incumbent's
representatives as `known` when answers are put into classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum

from adapters.vote import Vote, harmony


@dataclass(frozen=True, slots=True)
class ProbeSample:
    """One sampled answer to a probe prompt."""

    view: int  # 0: the prompt as it was asked
    answer: str | None
    num_tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """The counts of one version; shares are in [0, 1], None where there is nothing to count."""

    version: str
    num_prompts: int
    num_samples: int
    label_agreement: float | None  # mean over labelled prompts of the share equal to the label
    view_agreement: float | None  # mean over prompts with several views
    majority_ratio: float | None  # mean over prompts
    answer_rate: float  # samples with an answer
    mean_tokens: float
    flip_rate: float | None  # labelled prompts whose own vote is another one, or abstains
    kl: float | None  # to the base model, nats a token; measured elsewhere
    accuracy: float | None = None  # mean of `accuracies`; None where no truth is known
    # By fingerprint, because the gate compares prompt by prompt:
    accuracies: dict[str, float] = field(default_factory=dict[str, float])
    # share of right samples, of prompts whose truth is known
    agreements: dict[str, float] = field(default_factory=dict[str, float])
    # share equal to the label, of labelled prompts
    view_agreements: dict[str, float] = field(default_factory=dict[str, float])
    # of prompts that were asked through several views


def labels_of(
    probe: Mapping[str, Sequence[ProbeSample]], min_answers: int
) -> dict[str, str | None]:
    """The harmony label of each prompt, by fingerprint; None where its vote abstains."""
    return {
        fingerprint: _vote(samples, min_answers).label for fingerprint, samples in probe.items()
    }


def report(
    version: str,
    probe: Mapping[str, Sequence[ProbeSample]],
    labels: Mapping[str, str | None],
    *,
    kl: float | None,
    truths: Mapping[str, str] | None = None,
) -> EvaluationReport:
    """Count what `version` answered.

    Args:
        version: its public name.
        probe: its samples by the prompts' fingerprints; a prompt without samples is left out.
        labels: the incumbent's labels by fingerprint, from `labels_of`.
        kl: KL to the base model, nats a token, if it was measured.
        truths: right answers by fingerprint, as class representatives, where they are known. Pass
            the same ones for both versions; those of prompts outside the probe are ignored.
    """
    asked = {fingerprint: probe[fingerprint] for fingerprint in sorted(probe) if probe[fingerprint]}
    votes = {fingerprint: _vote(samples, 1) for fingerprint, samples in asked.items()}
    everything = [sample for samples in asked.values() for sample in samples]
    labelled = {f: label for f in asked if (label := labels.get(f)) is not None}
    agreements = {f: votes[f].shares.get(label, 0.0) for f, label in labelled.items()}
    flips = [float(votes[f].label != label) for f, label in labelled.items()]
    views = {f: v.view_agreement for f, v in votes.items() if v.view_agreement is not None}
    answered = [float(_answer(sample) is not None) for sample in everything]
    known = {f: truths[f] for f in asked if f in truths} if truths else {}
    accuracies = {f: _share_of(asked[f], truth) for f, truth in known.items()}
    return EvaluationReport(
        version=version,
        num_prompts=len(asked),
        num_samples=len(everything),
        label_agreement=_mean(list(agreements.values())),
        view_agreement=_mean(list(views.values())),
        majority_ratio=_mean([vote.majority_ratio for vote in votes.values()]),
        answer_rate=_mean(answered) or 0.0,
        mean_tokens=_mean([float(sample.num_tokens) for sample in everything]) or 0.0,
        flip_rate=_mean(flips),
        kl=kl,
        accuracy=_mean(list(accuracies.values())),
        accuracies=accuracies,
        agreements=agreements,
        view_agreements=views,
    )


def _share_of(samples: Sequence[ProbeSample], answer: str) -> float:
    return sum(_answer(sample) == answer for sample in samples) / len(samples)


def _answer(sample: ProbeSample) -> str | None:
    return None if sample.truncated else sample.answer


def _vote(samples: Sequence[ProbeSample], min_answers: int) -> Vote:
    answers = [_answer(sample) for sample in samples]
    return harmony(answers, [sample.view for sample in samples], min_answers=min_answers)


def _mean(values: Sequence[float]) -> float | None:
    return fsum(values) / len(values) if values else None
