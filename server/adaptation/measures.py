"""The numbers of one step. docs/algorithm.md describes each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum, log, sqrt
from statistics import stdev

from adapters.batch import Stepped
from adapters.quality import label_accuracy
from adapters.vote import Vote
from server.adaptation.judging import UNANIMOUS, JudgedGroup


def group_metrics(groups: Sequence[JudgedGroup], sample_s: float) -> dict[str, float]:
    """What the votes of a step say, and its samples; shares are in [0, 1]. A mean over nothing is
    left out. The incumbent's answers are in the votes alone: they say nothing about the weights.
    """
    samples = [judged for group in groups for judged in group.own]
    asked = [group for group in groups if group.samples]
    labelled = sum(group.vote.label is not None for group in groups)
    means = {
        "majority_ratio": _mean(group.vote.majority_ratio for group in asked),
        "label_share": _mean(float(group.vote.label is not None) for group in groups),
        "abstain_share": _mean(float(group.vote.label is None) for group in groups),
        "view_agreement": _mean(
            agreement for g in asked if (agreement := g.vote.view_agreement) is not None
        ),
        "vote_entropy": _mean(h for g in asked if (h := vote_entropy(g.vote)) is not None),
        "flip_rate": _mean(float(group.flipped) for group in groups if group.flipped is not None),
        "mean_reward": _mean(judged.reward for judged in samples if judged.reward is not None),
        "answer_rate": _mean(float(judged.answer is not None) for judged in samples),
        "answer_rate_error": _answer_rate_error(asked),
        "truncated_share": _mean(float(judged.sample.truncated) for judged in samples),
        "stopped_share": _mean(float(group.group.stop is not None) for group in asked),
        "zero_variance_share": _mean(float(group.reason == UNANIMOUS) for group in groups),
        "mean_tokens": _mean(float(len(j.sample.completion.token_ids)) for j in samples),
    }
    counts = {
        "num_groups": float(len(groups)),
        "num_labelled_groups": float(labelled),
        "num_trained_groups": float(sum(group.reason is None for group in groups)),
        "num_rollouts": float(sum(len(group.samples) for group in groups)),
        "num_feedback_labels": float(sum(g.label_source == "feedback" for g in groups)),
        "num_incumbent_votes": float(sum(len(group.group.incumbent) for group in groups)),
        "num_served_votes": float(sum(len(group.group.served) for group in groups)),
        "sample_s": sample_s,
    }
    means |= _against_truths(asked)
    return {name: value for name, value in means.items() if value is not None} | counts


def _against_truths(groups: Sequence[JudgedGroup]) -> dict[str, float | None]:
    """The paper's metrics of votes and samples, on the prompts whose truth is known; what the vote
    said counts, also where the truth took its place as the label.
    """
    known = [(group, truth) for group in groups if (truth := group.truth) is not None]
    shares = (
        _mean(float(judged.answer == truth) for judged in group.own) for group, truth in known
    )
    return {
        "label_accuracy": label_accuracy([g.voted for g, _ in known], [t for _, t in known]),
        "ground_truth_ratio": _mean(share for share in shares if share is not None),
    }


def vote_entropy(vote: Vote) -> float | None:
    """Entropy of the answers as a share of the most that it could be, the logarithm of their
    number: 0 for one answer, 1 for all different; None for fewer than two.
    """
    if vote.num_answers < 2:
        return None
    total = fsum(vote.shares.values())
    nats = -fsum(p / total * log(p / total) for p in vote.shares.values() if p > 0)
    return max(0.0, nats) / log(vote.num_answers)


def _answer_rate_error(groups: Sequence[JudgedGroup]) -> float | None:
    """Standard error of the answer rate, between prompts."""
    rates = [
        fsum(judged.answer is not None for judged in group.own) / len(group.own) for group in groups
    ]
    return stdev(rates) / sqrt(len(rates)) if len(rates) > 1 else None


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
