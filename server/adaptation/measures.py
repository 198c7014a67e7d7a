"""The numbers of one step. docs/algorithm.md describes each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum

from adapters.batch import Stepped
from server.adaptation.judging import UNANIMOUS, JudgedGroup


def group_metrics(groups: Sequence[JudgedGroup], sample_s: float) -> dict[str, float]:
    """What the votes of a step say; shares are in [0, 1]. A mean over nothing is left out."""
    samples = [judged for group in groups for judged in group.samples]
    asked = [group for group in groups if group.samples]
    labelled = sum(group.vote.label is not None for group in groups)
    means = {
        "majority_ratio": _mean(group.vote.majority_ratio for group in asked),
        "label_share": _mean(float(group.vote.label is not None) for group in groups),
        "abstain_share": _mean(float(group.vote.label is None) for group in groups),
        "view_agreement": _mean(
            agreement for g in asked if (agreement := g.vote.view_agreement) is not None
        ),
        "mean_reward": _mean(judged.reward for judged in samples if judged.reward is not None),
        "answer_rate": _mean(float(judged.answer is not None) for judged in samples),
        "truncated_share": _mean(float(judged.sample.truncated) for judged in samples),
        "zero_variance_share": _mean(float(group.reason == UNANIMOUS) for group in groups),
        "mean_tokens": _mean(float(len(j.sample.completion.token_ids)) for j in samples),
    }
    counts = {
        "num_groups": float(len(groups)),
        "num_labelled_groups": float(labelled),
        "num_trained_groups": float(sum(group.reason is None for group in groups)),
        "num_rollouts": float(len(samples)),
        "sample_s": sample_s,
    }
    return {name: value for name, value in means.items() if value is not None} | counts


def update_metrics(stepped: Stepped, *, update_s: float, load_ms: float) -> dict[str, float]:
    """What the update did."""
    metrics = {
        "loss": stepped.loss,
        "grad_norm": stepped.grad_norm,
        "num_train_samples": float(stepped.num_samples),
        "num_train_tokens": float(stepped.num_tokens),
        "mismatch": stepped.mismatch,
        "mismatch_kl": stepped.mismatch_kl,
        "clip_fraction": stepped.clip_fraction,
        "entropy": stepped.entropy,
        "update_s": update_s,
        "load_ms": load_ms,
    }
    return metrics if stepped.kl_base is None else metrics | {"kl_base": stepped.kl_base}


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fsum(known) / len(known) if known else None
