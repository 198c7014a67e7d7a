"""Parts of a batch at the same time, each in a thread of its own with one torch thread.

On a CPU that is faster than one part after the other in several torch threads: those wait for each
other at the end of each small product, above all where other processes want the cores too. What is
computed does not depend on which part is done first. A GPU is kept busy by one part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """`count` threads, started when they are first needed."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(
            count, "worker", initializer=lambda: torch.set_num_threads(1)
        )

    def each(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Results in the order of the items. An error is raised when no item is worked on."""
        if self.count == 1 or len(items) == 1:
            return [function(item) for item in items]
        futures = [self._pool.submit(function, item) for item in items]
        wait(futures)
        return [future.result() for future in futures]

    def shares(self, items: Sequence[T], sizes: Sequence[int]) -> list[list[T]]:
        """The items, in as many lists as there are workers (or fewer), of about equal size each."""
        shares: list[list[T]] = [[] for _ in range(min(self.count, len(items)))]
        loads = [0] * len(shares)
        for index in sorted(range(len(items)), key=lambda index: -sizes[index]):
            least = loads.index(min(loads))
            shares[least].append(items[index])
            loads[least] += sizes[index]
        return shares
