"""Whether a candidate may replace the incumbent: a pure function of two reports.

Without truths nothing here is proof, so everything must hold and missing evidence counts against
the candidate. The order of trust: the incumbent's labels are worth something only where its views
agree on them (its own sureness says nothing); then the candidate must agree with them more often,
without changing many of them, losing answers, growing or shrinking its texts, or leaving the base
model far behind. View agreement is that of the untrained model, carried by the incumbent's report:
training on labels that the views share makes any version agree with itself.

Where the truth of enough probe prompts is known, accuracy decides in the place of labels: the mean
of the paired differences must be a gain, and the lower bound of a one-sided bootstrap over prompts
no loss. That bound never falls when some prompt's accuracy rises, which a t-test cannot promise.
Fewer truths than that only veto. What protects from collapse holds in either case.

Every condition is monotonic: a candidate that answers better is not refused where a worse one is
not. So what refuses the best candidate that there could be refuses all of them, and can be known
before one is trained (`foreseen`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import fsum, isfinite

from adapters.quality import Interval, paired_difference
from adapters.report import EvaluationReport

MIN_TRUTHS = 5  # fewer prompts have no bounds worth the name
ROUNDING = 1e-9  # means of shares carry rounding errors; a limit that is met exactly is met


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What a candidate must prove; the fields and defaults of `ttrl_client.types.Gate`.

    A `min_view_agreement` of 0 trusts labels without views to back them.
    """

    enabled: bool = True
    probe_fraction: float = 0.2
    probe_prompts: int = 32
    min_probe_prompts: int = 8
    samples_per_prompt: int = 24
    min_view_agreement: float = 0.7
    min_gain: float = 0.03
    max_flip_rate: float = 0.35
    max_answer_rate_drop: float = 0.05
    max_length_ratio: float = 2.0
    max_kl: float = 1.0
    min_truths: int = 16
    min_accuracy_gain: float = 0.0
    max_accuracy_loss: float = 0.03
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The verdict. Reasons are `<metric>: <numbers>`, one for each condition that does not hold; a
    promotion by a working gate has none.
    """

    promote: bool
    reasons: tuple[str, ...]


def decide(
    candidate: EvaluationReport, incumbent: EvaluationReport, policy: GatePolicy
) -> GateDecision:
    """Promote the candidate if every condition holds; otherwise say which do not."""
    if not policy.enabled:
        return GateDecision(promote=True, reasons=("gate: disabled",))
    truths = len(incumbent.accuracies) >= max(policy.min_truths, MIN_TRUTHS)
    judged = _gain_in_accuracy if truths else _gain_in_agreement
    reasons = (
        *_same_probe(candidate, incumbent, policy),
        *(_broken_truths(candidate, incumbent) or judged(candidate, incumbent, policy)),
        *_side_effects(candidate, incumbent, policy),
    )
    return GateDecision(promote=not reasons, reasons=reasons)


def foreseen(incumbent: EvaluationReport, policy: GatePolicy) -> tuple[str, ...]:
    """The reasons for which no candidate whatever will replace the incumbent; none: one might."""
    best = replace(
        incumbent,
        agreements=dict.fromkeys(incumbent.agreements, 1.0),
        accuracies=dict.fromkeys(incumbent.accuracies, 1.0),
        answer_rate=1.0,
        flip_rate=0.0,
        kl=0.0,
    )
    verdict = decide(best, incumbent, policy)
    return () if verdict.promote else verdict.reasons


def _same_probe(
    candidate: EvaluationReport, incumbent: EvaluationReport, policy: GatePolicy
) -> Iterator[str]:
    if candidate.num_prompts != incumbent.num_prompts:
        yield f"num_prompts: {candidate.num_prompts} != {incumbent.num_prompts} of the incumbent"
    fewest = min(candidate.num_prompts, incumbent.num_prompts)
    if fewest < policy.min_probe_prompts:
        yield f"num_prompts: {fewest} < {policy.min_probe_prompts}"


def _broken_truths(candidate: EvaluationReport, incumbent: EvaluationReport) -> tuple[str, ...]:
    after, before = candidate.accuracies, incumbent.accuracies
    if after.keys() != before.keys():
        return (f"accuracies: of {len(after)} prompts, other ones than {len(before)} before",)
    values = (*before.values(), *after.values())
    return tuple(reason for value in values for reason in _share("accuracy", value))[:1]


def _accuracy_difference(
    candidate: EvaluationReport, incumbent: EvaluationReport, policy: GatePolicy
) -> Interval:
    """Candidate - incumbent, with one-sided bounds. Both have accuracies of the same prompts."""
    prompts = sorted(incumbent.accuracies)
    return paired_difference(
        [candidate.accuracies[prompt] for prompt in prompts],
        [incumbent.accuracies[prompt] for prompt in prompts],
        confidence=2 * policy.confidence - 1,
    )


def _gain_in_accuracy(
    candidate: EvaluationReport, incumbent: EvaluationReport, policy: GatePolicy
) -> Iterator[str]:
    difference = _accuracy_difference(candidate, incumbent, policy)
    yield from _at_least("accuracy_gain", difference.mean, policy.min_accuracy_gain)
    yield from _at_least("accuracy_gain_bound", difference.low, -policy.max_accuracy_loss)


def _gain_in_agreement(
    candidate: EvaluationReport, incumbent: EvaluationReport, policy: GatePolicy
) -> Iterator[str]:
    yield from _trusted_labels(incumbent, policy)
    yield from _gain(candidate, incumbent, policy)
    flips = tuple(_share("flip_rate", candidate.flip_rate))
    yield from flips or _at_most("flip_rate", candidate.flip_rate, policy.max_flip_rate)
    if len(incumbent.accuracies) >= MIN_TRUTHS:
        difference = _accuracy_difference(candidate, incumbent, policy)
        yield from _at_least("accuracy_gain_bound", difference.high, -policy.max_accuracy_loss)


def _trusted_labels(incumbent: EvaluationReport, policy: GatePolicy) -> Iterator[str]:
    if policy.min_view_agreement <= 0 and incumbent.view_agreement is None:
        return
    yield from _at_least("view_agreement", incumbent.view_agreement, policy.min_view_agreement)


def _gain(
    candidate: EvaluationReport, incumbent: EvaluationReport, policy: GatePolicy
) -> Iterator[str]:
    """On labelled prompts; where views back labels, on those only that have several views."""
    backed = policy.min_view_agreement > 0
    labelled = incumbent.agreements.keys()
    prompts = sorted(labelled & incumbent.view_agreements.keys() if backed else labelled)
    if len(prompts) < policy.min_probe_prompts:
        yield f"labels: {len(prompts)} < {policy.min_probe_prompts}"
    elif candidate.agreements.keys() != labelled:
        yield f"agreements: of {len(candidate.agreements)} prompts, other ones than before"
    else:
        before = [incumbent.agreements[prompt] for prompt in prompts]
        after = [candidate.agreements[prompt] for prompt in prompts]
        broken = [reason for share in before + after for reason in _share("agreement", share)]
        if broken:  # sums of what is no share may overflow
            yield broken[0]
            return
        gain = fsum(after) / len(prompts) - fsum(before) / len(prompts)
        yield from _at_least("label_agreement_gain", gain, policy.min_gain)


def _side_effects(
    candidate: EvaluationReport, incumbent: EvaluationReport, policy: GatePolicy
) -> Iterator[str]:
    rates = (
        *_share("answer_rate", incumbent.answer_rate),
        *_share("answer_rate", candidate.answer_rate),
    )
    drop = incumbent.answer_rate - candidate.answer_rate
    yield from rates[:1] or _at_most("answer_rate_drop", drop, policy.max_answer_rate_drop)
    yield from _length(candidate.mean_tokens, incumbent.mean_tokens, policy.max_length_ratio)
    # k3 estimates are not negative; a clearly negative one is a broken measurement.
    if candidate.kl is not None and candidate.kl < -ROUNDING:
        yield f"kl: {candidate.kl:.4f} < 0"
    else:
        yield from _at_most("kl", candidate.kl, policy.max_kl)


def _length(after: float, before: float, limit: float) -> Iterator[str]:
    if not (isfinite(after) and isfinite(before) and after > 0 and before > 0):
        yield f"mean_tokens: {after} against {before} is no evidence"
        return
    ratio = after / before
    yield from _at_most("mean_tokens_ratio", ratio, limit)
    yield from _at_least("mean_tokens_ratio", ratio, 1 / limit)


def _share(name: str, value: float | None) -> Iterator[str]:
    """A complaint unless the value is a share."""
    if value is None:
        yield f"{name}: missing"
    elif not isfinite(value):
        yield f"{name}: {value} is not a number"
    elif not -ROUNDING <= value <= 1 + ROUNDING:
        yield f"{name}: {value:.4f} is not a share"


def _at_least(name: str, value: float | None, limit: float) -> Iterator[str]:
    if value is None:
        yield f"{name}: missing"
    elif not isfinite(value):
        yield f"{name}: {value} is not a number"
    elif not value >= limit - ROUNDING:  # a limit that is not a number is not met
        yield f"{name}: {value:.4f} < {limit:.4f}"


def _at_most(name: str, value: float | None, limit: float) -> Iterator[str]:
    if value is None:
        yield f"{name}: missing"
    elif not isfinite(value):
        yield f"{name}: {value} is not a number"
    elif not value <= limit + ROUNDING:
        yield f"{name}: {value:.4f} > {limit:.4f}"
