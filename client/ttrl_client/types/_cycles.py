"""Adaptation cycles, their steps and their evaluations."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from ttrl_client.types._base import Wire, WireInput


class CycleStatus(StrEnum):
    """Where a cycle stands. All but the first two are final."""

    PENDING = "pending"
    RUNNING = "running"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = (CycleStatus.PENDING, CycleStatus.RUNNING)


class CyclePhase(StrEnum):
    """What a running cycle is doing."""

    SELECT = "select"
    BASELINE = "baseline"
    TRAIN = "train"
    EVALUATE = "evaluate"
    PUBLISH = "publish"


class CycleCreate(WireInput):
    """A cycle by hand."""

    seed: int | None = Field(
        default=None, ge=0, lt=2**31, description="Makes selection and sampling repeatable."
    )


class Step(Wire):
    """One batch of a cycle, and what was learned from it."""

    step: int = Field(description="From 1.")
    metrics: dict[str, float | int | None] = Field(
        description="See docs/algorithm.md for each of them."
    )
    created_at: datetime = Field(description="When it was stored, after its adapter was on disk.")


class EvaluationReport(Wire):
    """How one version did on the probe prompts; shares are in [0, 1]."""

    version: str = Field(description="Which version was measured.")
    num_prompts: int = Field(description="Probe prompts.")
    num_samples: int = Field(description="Samples over all probe prompts.")
    label_agreement: float | None = Field(
        description="Mean share of samples that equal the incumbent's label."
    )
    view_agreement: float | None = Field(
        description="Mean pairwise agreement of the views' top answers."
    )
    majority_ratio: float | None = Field(description="Mean share of the most frequent answer.")
    answer_rate: float = Field(description="Share of samples with a parsable answer.")
    mean_tokens: float = Field(description="Mean length of a sample, in tokens.")
    flip_rate: float | None = Field(description="Share of labels that differ from the incumbent's.")
    kl: float | None = Field(description="KL to the base model, nats a token.")
    accuracy: float | None = Field(
        default=None, description="Share of right samples, of prompts whose truth is known."
    )


class Cycle(Wire):
    """A cycle with its steps and its verdict."""

    id: int = Field(description="Grows with time, over all tenants.")
    tenant: str = Field(description="The name of its tenant.")
    trigger: str = Field(description="manual, interval, cron or threshold.")
    status: CycleStatus = Field(description="Where it stands.")
    phase: CyclePhase | None = Field(description="While it runs.")
    cancel_requested: bool = Field(
        default=False, description="Asked to stop; its worker does so at the next safe point."
    )
    seed: int = Field(description="Selection and sampling follow from it.")
    parent_version: int | None = Field(description="The incumbent when it started.")
    candidate_version: int | None = Field(description="The version that it published.")
    steps_planned: int = Field(description="Batches that it wants to learn from.")
    steps_done: int = Field(
        description="Batches that are done, each with what was learned from it."
    )
    num_rollouts: int = Field(description="Answers sampled for training.")
    selection: dict[str, int] | None = Field(description="Counts of prompts by reason code.")
    decision: Literal["promoted", "rejected"] | None = Field(description="The gate's.")
    reasons: list[str] = Field(description="Why, with numbers: `flip_rate: 0.41 > 0.35`.")
    incumbent: EvaluationReport | None = Field(description="How the parent version did.")
    candidate: EvaluationReport | None = Field(description="How the trained version did.")
    error: str | None = Field(description="Why it failed or was cancelled.")
    attempts: int = Field(description="Times that a worker took it up.")
    created_at: datetime = Field(description="When it was asked for.")
    started_at: datetime | None = Field(description="When a worker first took it up.")
    finished_at: datetime | None = Field(description="When it became final.")
    steps: list[Step] = Field(default_factory=list[Step], description="Empty in lists.")

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.status not in ACTIVE
