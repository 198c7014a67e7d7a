"""How good answers are where the truth is known; for benchmarks, and for gates with labels.

pass@k is the unbiased estimate of Codex (arXiv 2107.03374, eq. 1), maj@k its counterpart for
votes: the exact probability, over all subsets of k of the n samples, that `majority` finds the
truth. Intervals are percentile bootstraps over prompts, because prompts, not samples, are what
another run would draw anew; with few prompts they are somewhat too short. `label_accuracy`,
`reward_accuracy` and `ground_truth_ratio` are TTRL's (arXiv 2504.16084), and obey

    reward_accuracy = LA + (1 - LA) E[1 - majority_ratio - ground_truth_ratio | label wrong]

for plain majority votes and groups of one size. Prompts that are learned or corrupted are counted
as TTRL-Guard does (arXiv 2605.19444), by thresholds on pass@1.

Answers are class representatives that are comparable with the truth: equal strings are equal
answers. None is a sample without an answer, and never right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, fsum, prod
from random import Random

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Answered:
    """The samples of one prompt whose truth is known."""

    truth: str
    answers: tuple[str | None, ...]

    @property
    def num_correct(self) -> int:
        """How many are right."""
        return self.answers.count(self.truth)

    @property
    def mean(self) -> float:
        """mean@n: the share that is right, which is pass@1; no samples are wrong samples."""
        return self.num_correct / len(self.answers) if self.answers else 0.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over prompts and the bounds between which it lies with the stated confidence."""

    mean: float
    low: float
    high: float


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The chance that k of the n samples, drawn without replacement, hold a right one.

    Raises:
        ValueError: unless 1 <= k <= n and 0 <= correct <= n.
    """
    if not (1 <= k <= num_samples and 0 <= num_correct <= num_samples):
        raise ValueError(f"pass@{k} of {num_correct} right among {num_samples}")
    wrong = num_samples - num_correct
    if wrong < k:
        return 1.0  # also where the product would be a rounding error away from it
    return 1.0 - prod(1.0 - k / i for i in range(wrong + 1, num_samples + 1))


def maj_at_k(answers: Sequence[str | None], truth: str, k: int) -> float:
    """The chance that a vote of k of the samples, drawn without replacement, finds the truth.

    Exact, by counting subsets: the truth wins with t votes when every other answer has fewer, or
    as many and a name that sorts later, which is the tie rule of `adapters.vote.majority`.

    Raises:
        ValueError: unless 1 <= k <= n.
    """
    if not 1 <= k <= len(answers):
        raise ValueError(f"maj@{k} of {len(answers)} samples")
    counts = Counter(answers)
    votes = counts.pop(truth, 0)
    wins = sum(
        comb(votes, t) * _ways(counts, truth, won=t, drawn=k - t)
        for t in range(1, min(votes, k) + 1)
    )
    return wins / comb(len(answers), k)


def _ways(others: Counter[str | None], truth: str, *, won: int, drawn: int) -> int:
    """Subsets of `drawn` samples of the others that leave the truth the winner with `won` votes.

    The coefficient of x^drawn in the product of sum_{j <= limit} C(count, j) x^j.
    """
    ways = [1] + [0] * drawn
    for answer, count in others.items():
        limit = count  # samples without an answer are drawn, and do not vote
        if answer is not None:
            limit = min(count, won if truth < answer else won - 1)
        terms = [comb(count, j) for j in range(min(limit, drawn) + 1)]
        ways = [
            sum(term * ways[total - j] for j, term in enumerate(terms[: total + 1]))
            for total in range(drawn + 1)
        ]
    return ways[drawn]


def bootstrap(
    values: Sequence[float],
    *,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """The mean of one value per prompt, with a percentile bootstrap interval over prompts.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no prompts, so no mean")
    random = Random(seed)
    size = len(values)
    means = sorted(fsum(random.choices(values, k=size)) / size for _ in range(resamples))
    cut = int((1.0 - confidence) / 2 * resamples)
    return Interval(fsum(values) / size, means[cut], means[resamples - 1 - cut])


def paired_difference(
    after: Sequence[float],
    before: Sequence[float],
    *,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """The mean of after - before over the same prompts in the same order, with its interval.

    Raises:
        ValueError: no values, or different numbers of them.
    """
    differences = [b - a for a, b in zip(before, after, strict=True)]
    return bootstrap(differences, seed=seed, confidence=confidence, resamples=resamples)


def measure(
    prompts: Sequence[Answered],
    *,
    pass_ks: Sequence[int] = (),
    maj_ks: Sequence[int] = (),
    seed: int = 0,
) -> dict[str, Interval]:
    """mean@n, pass@k and maj@k over prompts, by name (`mean@16`; `mean` where n differs).

    Raises:
        ValueError: no prompts, or one with fewer samples than some k.
    """
    sizes = {len(prompt.answers) for prompt in prompts}
    name = f"mean@{min(sizes)}" if len(sizes) == 1 else "mean"
    columns = {name: [prompt.mean for prompt in prompts]}
    for k in pass_ks:
        columns[f"pass@{k}"] = [pass_at_k(len(p.answers), p.num_correct, k) for p in prompts]
    for k in maj_ks:
        columns[f"maj@{k}"] = [maj_at_k(p.answers, p.truth, k) for p in prompts]
    return {name: bootstrap(column, seed=seed) for name, column in columns.items()}


def label_accuracy(labels: Sequence[str | None], truths: Sequence[str]) -> float | None:
    """The share of right labels among the labels; None where every vote abstained."""
    right = [label == t for label, t in zip(labels, truths, strict=True) if label is not None]
    return _mean(right)


def reward_accuracy(
    prompts: Sequence[Answered], rewards: Sequence[Sequence[float | None]]
) -> float | None:
    """Mean over prompts of the share of samples whose reward is that of the truth.

    A reward above one half says "right". Samples without a reward are not counted, nor are prompts
    without rewards; None where nothing is counted.

    Raises:
        ValueError: rewards that are not aligned with the prompts and their samples.
    """
    shares: list[float] = []
    for prompt, given in zip(prompts, rewards, strict=True):
        agree = [
            (reward > 0.5) == (answer == prompt.truth)
            for answer, reward in zip(prompt.answers, given, strict=True)
            if reward is not None
        ]
        if agree:
            shares.append(sum(agree) / len(agree))
    return _mean(shares)


def ground_truth_ratio(prompts: Sequence[Answered]) -> float | None:
    """Mean over prompts of the share of right samples; None without prompts."""
    return _mean([prompt.mean for prompt in prompts])


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of the prompts; `learned` of `num_unsolved`, `corrupted` of `num_solvable`."""

    learned: int
    corrupted: int
    num_unsolved: int  # pass@1 below `unsolved` before
    num_solvable: int  # pass@1 of `solvable` or more before


def count_changes(
    before: Sequence[float],
    after: Sequence[float],
    *,
    solvable: float = 0.3,
    unsolved: float = 0.15,
) -> Changes:
    """Count by pass@1 of the same prompts in the same order.

    Corrupted: at least `solvable` before and below `unsolved` after. Learned: the reverse.

    Raises:
        ValueError: different numbers of prompts.
    """
    pairs = list(zip(before, after, strict=True))
    return Changes(
        learned=sum(b < unsolved and a >= solvable for b, a in pairs),
        corrupted=sum(b >= solvable and a < unsolved for b, a in pairs),
        num_unsolved=sum(b < unsolved for b, _ in pairs),
        num_solvable=sum(b >= solvable for b, _ in pairs),
    )


def _mean(values: Sequence[float]) -> float | None:
    return fsum(values) / len(values) if values else None
