"""When a cycle stops learning early, and which step it goes back to then.

The rules look at the measures of all steps so far (docs/algorithm.md lists them), so a cycle that
is taken up after a crash comes to the same decision from the stored steps:

- collapse: the answer rate of the last steps is lower than that of the first ones by more than
  `max_answer_rate_drop`, and by more than three standard errors: steps ask different prompts, and
  some prompts have no answer to extract. Or the entropy fell below `min_entropy_ratio` of the first
  step's: the policy says the same whatever it is asked (SRT, arXiv 2505.21444).
- drift: the samples of a step are further than `max_kl` from the base model, or engine and trainer
  are that far apart.
- no progress: for `patience` steps the agreement of the views or, where views agree alike, the
  majority ratio was not better than the best so far (the ratio alone, where no prompt has views).

What a step measures are the weights that it *sampled from*, those of the step before. The best
step is the one whose samples agreed best, averaged over `WINDOW` steps, before anything was wrong;
where views agree alike, as they soon do, the one with the highest majority ratio. A high agreement
is no proof, collapsed policies agree too: the gate decides, as always.

After any early stop a cycle goes back to the best step. Where nothing was wrong to the end, stopped
or not, the mean of the steps that were as good as the best takes the place of the one step that was
reached (`plateau`, adapters.training.averaging).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, hypot

from ttrl_client.types import StopRules

WINDOW = 3  # steps that are averaged
NUM_ERRORS = 3  # standard errors that a fall must exceed
TOLERANCE = 0.03  # in the majority ratio, for a step to be as good as the best


@dataclass(frozen=True, slots=True)
class Measured:
    """One step: the step whose weights it sampled from (0: the incumbent's), and its measures."""

    sampled_from: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """Why a cycle stops learning, and the step that it goes back to (0: there is nothing to go on
    with).
    """

    reason: str
    best_step: int
    is_harm: bool = True  # False: there is only nothing more to learn


def early_stop(steps: Sequence[Measured], rules: StopRules) -> EarlyStop | None:
    """Whether to stop after these steps; None: go on."""
    if not rules.enabled or not steps:
        return None
    harm = _collapse(steps, rules) or _drift(steps, rules)
    found = harm or _no_progress(steps, rules)
    if found is None:
        return None
    reason, num_suspect = found
    best = _best_step(steps[: len(steps) - num_suspect])
    kept = f"step {best} was the best" if best else "no step goes on"
    told = f"stopped: {reason} after step {len(steps)}; {kept}"
    return EarlyStop(told, best, is_harm=harm is not None)


def plateau(steps: Sequence[Measured], reached: int) -> set[int]:
    """The steps whose weights were as good as the best, to `TOLERANCE`, and those that learning
    has `reached`; without the incumbent's.
    """
    ratio = _over_window(steps, "majority_ratio")
    least = max(ratio.values(), default=0.0) - TOLERANCE
    good = {steps[at].sampled_from for at, value in ratio.items() if value >= least}
    return (good | {reached}) - {0}


_Found = tuple[str, int]  # the reason, and how many of the last steps are not to be trusted


def _collapse(steps: Sequence[Measured], rules: StopRules) -> _Found | None:
    window = min(WINDOW, len(steps) // 2)
    then, now = _level(steps[:window]), _level(steps[len(steps) - window :])
    if then is not None and now is not None:
        fall = then[0] - now[0]
        if fall > max(rules.max_answer_rate_drop, NUM_ERRORS * hypot(then[1], now[1])):
            reason = f"answer_rate: {now[0]:.2f} < {then[0]:.2f} - {rules.max_answer_rate_drop:g}"
            return reason, window
    entropies = [value for step in steps if (value := step.metrics.get("entropy")) is not None]
    if "entropy" in steps[-1].metrics and entropies[-1] < rules.min_entropy_ratio * entropies[0]:
        least = f"{rules.min_entropy_ratio:g} * {entropies[0]:.3g}"
        return f"entropy: {entropies[-1]:.3g} < {least}", 1
    return None


def _level(steps: Sequence[Measured]) -> tuple[float, float] | None:
    """The mean answer rate of some steps, with its standard error."""
    known = [step.metrics for step in steps if "answer_rate" in step.metrics]
    if not known:
        return None
    mean = fsum(metrics["answer_rate"] for metrics in known) / len(known)
    return mean, hypot(*(m.get("answer_rate_error", 0.0) for m in known)) / len(known)


def _drift(steps: Sequence[Measured], rules: StopRules) -> _Found | None:
    for name in ("kl_base", "mismatch_kl"):
        value = steps[-1].metrics.get(name)
        if value is not None and value > rules.max_kl:
            return f"{name}: {value:.3g} > {rules.max_kl:g}", 1
    return None


def _no_progress(steps: Sequence[Measured], rules: StopRules) -> _Found | None:
    best = _best_at(steps)
    if best is None or len(steps) - 1 - best < rules.patience:
        return None
    return f"no_progress: none for {rules.patience} steps", 0


def _best_step(steps: Sequence[Measured]) -> int:
    best = _best_at(steps)
    if best is None:
        return steps[-1].sampled_from if steps else 0
    return steps[best].sampled_from


def _best_at(steps: Sequence[Measured]) -> int | None:
    """The position of the step that agreed best, the first of equals; None: nothing was voted."""
    agreement = _agreement(steps)
    return max(agreement, key=lambda at: (agreement[at], -at), default=None)


def _agreement(steps: Sequence[Measured]) -> dict[int, tuple[float, float]]:
    """By position: how well the views agreed, and then the votes; of the votes twice, where no
    prompt has views.
    """
    with_views = any("view_agreement" in step.metrics for step in steps)
    ratios = _over_window(steps, "majority_ratio")
    views = _over_window(steps, "view_agreement") if with_views else ratios
    return {at: (agreement, ratios.get(at, 0.0)) for at, agreement in views.items()}


def _over_window(steps: Sequence[Measured], name: str) -> dict[int, float]:
    """By position: the mean of a measure of a step and those before it, `WINDOW` in all. The first
    ones are left out where there are more: a mean over fewer steps wins by luck too often.
    """
    known = {at: step.metrics[name] for at, step in enumerate(steps) if name in step.metrics}
    means: dict[int, float] = {}
    for at in known:
        window = [known[i] for i in range(max(0, at - WINDOW + 1), at + 1) if i in known]
        means[at] = fsum(window) / len(window)
    whole = {at: mean for at, mean in means.items() if at >= WINDOW - 1}
    return whole or means
