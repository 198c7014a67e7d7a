"""What the samples of a batch have in common, so that it is computed once.

Samples of a prompt begin alike, and often go on alike for a while; short answers are often the same
to the end; and all prompts of a tenant may begin with the same instructions. Samples of which the
same is read are one *sequence* here. Sequences that begin with a common *prefix* are a group, and
groups are cut so that as few tokens as possible are read: after what all have in common some go on
alike, and may have a longer prefix of their own, which begins with that of the others once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from adapters.batch import TrainSample

MOST_CUTS = 64  # of a group of a group of ...


@dataclass(frozen=True, slots=True)
class Read:
    """A sequence of tokens that the model reads, and the samples whose prompt and completion, but
    for its last token, it is: that one is only predicted.
    """

    tokens: tuple[int, ...]
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences whose first `prefix` tokens are the same, and computed once for all of them. Each
    has something of its own to read.
    """

    sequences: tuple[Read, ...]
    prefix: int

    @property
    def longest(self) -> int:
        """Own tokens of the sequence that has most."""
        return max(len(sequence.tokens) for sequence in self.sequences) - self.prefix

    @property
    def area(self) -> int:
        """Own tokens, where each sequence counts as the longest."""
        return len(self.sequences) * self.longest

    def num_read(self, token_budget: int) -> int:
        """Tokens that the model reads, where rows of so many own tokens have a prefix each."""
        num_rows = -(-self.area // token_budget)
        own = sum(len(sequence.tokens) - self.prefix for sequence in self.sequences)
        return num_rows * self.prefix + own


def sequences_of(samples: Sequence[TrainSample]) -> list[Read]:
    """What is read of the samples, sorted by tokens."""
    found: dict[tuple[int, ...], list[int]] = {}
    for index, sample in enumerate(samples):
        tokens = (*sample.prompt_ids, *sample.completion_ids[:-1])
        found.setdefault(tokens, []).append(index)
    return [Read(tokens, tuple(found[tokens])) for tokens in sorted(found)]


def group(sequences: Sequence[Read], token_budget: int) -> list[Group]:
    """Sorted sequences in groups. Those that share nothing worth it are one without a prefix."""
    alone: list[Read] = []
    groups: list[Group] = []
    for found in _cut(tuple(sequences), 0, token_budget, MOST_CUTS):
        if found.prefix and len(found.sequences) > 1:
            groups.append(found)
        else:
            alone.extend(found.sequences)
    return [*groups, Group(tuple(alone), 0)] if alone else groups


def _cut(sequences: tuple[Read, ...], start: int, token_budget: int, most_cuts: int) -> list[Group]:
    """Sorted sequences that have the first `start` tokens in common: in one group, or in several
    where fewer tokens are read then.
    """
    prefix = _common(sequences, start) if len(sequences) > 1 else 0
    whole = Group(sequences, prefix)
    if len(sequences) <= 2 or not most_cuts:
        return [whole]
    ways = [tuple(way) for _, way in groupby(sequences, key=lambda one: one.tokens[prefix])]
    if len(ways) == 1:  # the shortest one ends here
        return [whole]
    parts = [part for way in ways for part in _cut(way, prefix, token_budget, most_cuts - 1)]
    num_read = sum(part.num_read(token_budget) for part in parts)
    return parts if num_read < whole.num_read(token_budget) else [whole]


def _common(sequences: Sequence[Read], start: int) -> int:
    """How many tokens sorted sequences have in common, of which `start` are known. Each has one
    more.
    """
    first, last = sequences[0].tokens, sequences[-1].tokens
    low, high = start, min(len(sequence.tokens) for sequence in sequences) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if first[start:middle] == last[start:middle]:
            low = middle
        else:
            high = middle - 1
    return low
