"""What a cycle works with: made once per worker, passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from adapters import batch
from adapters.answers import AnswerKind, AnswerSpec
from adapters.store import AdapterStore
from server.adaptation.sampler import Sampler
from server.clock import Clock
from server.config import Settings
from server.db.engine import Database
from server.engine.warm import Warmer
from server.observability.traces import Traces
from server.swap import Loader

Reply = TypeVar("Reply", bound=batch.Reply)


class Trainer(Protocol):
    """Where the learning happens: a process of our own, or one day a Ray actor."""

    async def ask(self, request: batch.Request, expect: type[Reply]) -> Reply:
        """Send one request and wait for its reply.

        Raises:
            TrainerFailed: it died, was too slow, or refused. What it had open is lost.
        """
        ...


class Judge(Protocol):
    """Finds answers and puts them into classes of equal ones; blocking, safe from any thread."""

    def extract(self, texts: Sequence[str], spec: AnswerSpec | AnswerKind) -> list[str | None]:
        """Each text's final answer as written.

        Raises:
            JudgeFailed: the tenant's own function cannot be loaded.
            Defect: our code failed on one of the texts.
        """
        ...

    def classes(
        self,
        answers: Sequence[str | None],
        spec: AnswerSpec | AnswerKind,
        *,
        known: Sequence[str] = (),
    ) -> list[str | None]:
        """Each answer's class representative; `known` representatives are kept, the first of equal
        ones.

        Raises:
            Defect: our code failed on one of the answers.
        """
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """Everything outside of a cycle that it touches."""

    settings: Settings
    database: Database
    clock: Clock
    sampler: Sampler
    loader: Loader
    trainer: Trainer
    judge: Judge
    store: AdapterStore
    identity_dir: Path  # version 0's
    base_digest: str  # of the base model, as manifests have it
    traces: Traces | None = None
    warmer: Warmer | None = None  # fills a version's prefix cache before it goes live
