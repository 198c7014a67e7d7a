"""Rows of the database as wire types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from ttrl_client import types as wire

from server.db import models as rows
from server.db.feedback import Scores
from server.tenants import readable_settings


def tenant(row: rows.Tenant, *, num_queries: int, active_cycle: int | None) -> wire.Tenant:
    """A tenant with what it has done."""
    return wire.Tenant(
        id=row.id,
        name=row.name,
        settings=readable_settings(row.id, row.settings),
        live_version=row.live_version,
        previous_version=row.previous_version,
        num_queries=num_queries,
        active_cycle=active_cycle,
        created_at=row.created_at,
    )


def key(row: rows.ApiKey) -> wire.Key:
    """A key without its secret, which nobody knows any more."""
    return wire.Key.model_validate(row, from_attributes=True)


def new_key(row: rows.ApiKey, secret: str) -> wire.NewKey:
    """A key with its secret, the only time that it is shown."""
    return wire.NewKey(**dict(key(row)), secret=secret)


def cycle(row: rows.Cycle, tenant: str, steps: Sequence[rows.CycleStep] = ()) -> wire.Cycle:
    """A cycle of the tenant with this name."""
    return wire.Cycle(
        id=row.id,
        tenant=tenant,
        trigger=row.trigger,
        status=wire.CycleStatus(row.status),
        phase=None if row.phase is None else wire.CyclePhase(row.phase),
        cancel_requested=row.cancel_requested,
        seed=row.seed,
        parent_version=row.parent_version,
        candidate_version=row.candidate_version,
        steps_planned=row.steps_planned,
        steps_done=row.steps_done,
        num_rollouts=row.num_rollouts,
        selection=None if row.selection is None else row.selection["counts"],
        decision=cast(Literal["promoted", "rejected"] | None, row.decision),
        reasons=row.reasons or [],
        incumbent=_report(row.incumbent_report),
        candidate=_report(row.candidate_report),
        error=row.error,
        attempts=row.attempts,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        steps=[wire.Step.model_validate(step, from_attributes=True) for step in steps],
    )


def version(
    row: rows.AdapterVersion, live_version: int, scores: Scores | None = None
) -> wire.Version:
    """A published version, with what was said about its answers."""
    return wire.Version(
        number=row.number,
        live=row.number == live_version,
        parent=row.parent,
        cycle_id=row.cycle_id,
        manifest_digest=row.manifest_digest,
        report=row.report,
        num_feedback=0 if scores is None else scores.num_feedback,
        mean_score=None if scores is None else scores.mean_score,
        created_at=row.created_at,
    )


def identity_version(live_version: int, scores: Scores | None = None) -> wire.Version:
    """Version 0, which every tenant has and no row describes."""
    return wire.Version(
        number=0,
        live=live_version == 0,
        parent=None,
        cycle_id=None,
        manifest_digest=None,
        report={},
        num_feedback=0 if scores is None else scores.num_feedback,
        mean_score=None if scores is None else scores.mean_score,
        created_at=None,
    )


def swap(row: rows.Swap, tenant: str) -> wire.Swap:
    """A pointer that moved."""
    return wire.Swap(
        tenant=tenant,
        from_version=row.from_version,
        to_version=row.to_version,
        reason=row.reason,
        load_ms=row.load_ms,
        flip_ms=row.flip_ms,
        created_at=row.created_at,
    )


def query(row: rows.Query, answers: Sequence[rows.Answer]) -> wire.Query:
    """A logged request with its answers."""
    return wire.Query(
        id=row.id,
        route=row.route,
        prompt=row.prompt,
        params=row.params,
        answers=[wire.Answer.model_validate(answer, from_attributes=True) for answer in answers],
        adapter_version=row.adapter_version,
        stream=row.stream,
        status=row.status,
        eligible=row.eligible,
        reason=row.reason,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        latency_ms=row.latency_ms,
        first_byte_ms=row.first_byte_ms,
        created_at=row.created_at,
    )


def _report(report: dict[str, object] | None) -> wire.EvaluationReport | None:
    return None if report is None else wire.EvaluationReport.model_validate(report)
