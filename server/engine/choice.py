"""Which of several ready engines gets a request."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import ceil
from typing import Protocol, TypeVar

SLACK = 1.25  # a tenant stays with its engine up to this many times the mean load


class Candidate(Protocol):
    """An engine as far as the choice looks at it."""

    @property
    def url(self) -> str:
        """Tells it from the others."""
        ...

    @property
    def in_flight(self) -> int:
        """Its requests."""
        ...

    @property
    def picked(self) -> int:
        """When it was picked last; larger is later."""
        ...

    @property
    def loaded(self) -> set[str]:
        """The adapters that it has."""
        ...


C = TypeVar("C", bound=Candidate)


def choose(engines: Sequence[C], adapter: str, affinity: str) -> C:
    """One of at least one engines.

    With an affinity: rendezvous hashing with bounded loads. Each tenant ranks the engines in an
    order of its own, so that it meets its prompts in their prefix caches, and only its share moves
    when an engine comes or goes; one with more than its share of requests is passed over. Those
    that have the adapter come first. Without an affinity the least busy, in turns.
    """
    if not affinity:
        return min(engines, key=lambda engine: (engine.in_flight, engine.picked))
    share = (sum(engine.in_flight for engine in engines) + 1) / len(engines)
    most = ceil(SLACK * share)
    able = [engine for engine in engines if engine.in_flight < most]
    return min(able, key=lambda e: (adapter not in e.loaded, rank(affinity, e.url)))


def rank(affinity: str, url: str) -> bytes:
    """How little a tenant prefers an engine; the same in every process."""
    return blake2b(f"{affinity}@{url}".encode(), digest_size=8).digest()
