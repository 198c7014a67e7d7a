"""Steps of a cycle: each is one transaction with its groups and rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Subquery, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.cycles import Lease, update_fenced
from server.db.models import Cycle, CycleStep, Group, Rollout
from server.db.text import storable

CHUNK = 500  # fingerprints in one IN list
HISTORY = 20  # visits of a prompt that are looked back at


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """One sample as it is stored."""

    view: int
    text: str
    answer: str | None
    reward: float | None
    advantage: float | None
    num_tokens: int
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """The samples of one prompt with their vote, as they are stored."""

    query_id: str
    fingerprint: str
    label: str | None
    label_source: str | None  # "vote" | "feedback"; None: no label
    majority_ratio: float | None
    num_answers: int
    reason: str | None  # why not trained; None: trained
    rollouts: Sequence[RolloutRecord]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One update (or, with `engine_name` None, one step without signal)."""

    step: int
    engine_name: str | None
    adapter_dir: str | None
    state_dir: str | None
    metrics: Mapping[str, float]
    groups: Sequence[GroupRecord]


async def write_step(
    session: AsyncSession, lease: Lease, record: StepRecord, *, now: datetime
) -> None:
    """Write a step with everything that belongs to it. Its directories must be on disk.

    Raises:
        LeaseLost: another worker has taken the cycle up; nothing is written.
    """
    num_rollouts = sum(len(group.rollouts) for group in record.groups)
    await update_fenced(
        session, lease, steps_done=record.step, num_rollouts=Cycle.num_rollouts + num_rollouts
    )
    session.add(
        CycleStep(
            cycle_id=lease.cycle_id,
            step=record.step,
            engine_name=record.engine_name,
            adapter_dir=record.adapter_dir,
            state_dir=record.state_dir,
            metrics=dict(record.metrics),
            created_at=now,
        )
    )
    for group in record.groups:
        await _write_group(session, lease, record, group)


async def _write_group(
    session: AsyncSession, lease: Lease, step: StepRecord, group: GroupRecord
) -> None:
    row = Group(
        cycle_id=lease.cycle_id,
        tenant_id=lease.tenant_id,
        step=step.step,
        query_id=group.query_id,
        fingerprint=group.fingerprint,
        label=group.label,
        label_source=group.label_source,
        majority_ratio=group.majority_ratio,
        num_samples=len(group.rollouts),
        num_answers=group.num_answers,
        # A group that could have been trained on but whose step made no update was not trained on.
        trained=group.reason is None and step.engine_name is not None,
        reason=group.reason,
    )
    session.add(row)
    await session.flush()
    if group.rollouts:
        await session.execute(insert(Rollout), [_rollout_row(row.id, *r) for r in _numbered(group)])


def _numbered(group: GroupRecord) -> list[tuple[int, RolloutRecord]]:
    return list(enumerate(group.rollouts))


def _rollout_row(group_id: int, sample: int, rollout: RolloutRecord) -> dict[str, Any]:
    return {
        "group_id": group_id,
        "sample": sample,
        "view": rollout.view,
        "text": storable(rollout.text),
        "answer": rollout.answer,
        "reward": rollout.reward,
        "advantage": rollout.advantage,
        "num_tokens": rollout.num_tokens,
        "finish_reason": rollout.finish_reason,
    }


async def steps_of(session: AsyncSession, cycle_id: int) -> Sequence[CycleStep]:
    """The cycle's steps, in order."""
    return (
        await session.scalars(
            select(CycleStep).where(CycleStep.cycle_id == cycle_id).order_by(CycleStep.step)
        )
    ).all()


async def groups_of(
    session: AsyncSession, cycle_id: int, *, step: int | None = None
) -> Sequence[Group]:
    """The cycle's groups, in the order in which they were trained on."""
    query = select(Group).where(Group.cycle_id == cycle_id).order_by(Group.step, Group.id)
    if step is not None:
        query = query.where(Group.step == step)
    return (await session.scalars(query)).all()


async def count_visits(
    session: AsyncSession, tenant_id: int, fingerprints: Sequence[str]
) -> dict[str, int]:
    """How many updates each prompt took part in, over all cycles of the tenant; 0 is left out."""
    visits: dict[str, int] = {}
    for start in range(0, len(fingerprints), CHUNK):
        rows = await session.execute(
            select(Group.fingerprint, func.count())
            .where(
                Group.tenant_id == tenant_id,
                Group.trained,
                Group.fingerprint.in_(fingerprints[start : start + CHUNK]),
            )
            .group_by(Group.fingerprint)
        )
        visits.update({row[0]: row[1] for row in rows})
    return visits


async def first_labels(
    session: AsyncSession, cycle_id: int, fingerprints: Sequence[str]
) -> dict[str, str]:
    """The label of each prompt's first group in the cycle that has one; others are left out."""
    labels: dict[str, str] = {}
    for start in range(0, len(fingerprints), CHUNK):
        rows = await session.execute(
            select(Group.fingerprint, Group.label)
            .where(
                Group.cycle_id == cycle_id,
                Group.label.is_not(None),
                Group.fingerprint.in_(fingerprints[start : start + CHUNK]),
            )
            .order_by(Group.id.desc())
        )
        labels.update({row[0]: str(row[1]) for row in rows})
    return labels


async def label_history(
    session: AsyncSession,
    tenant_id: int,
    fingerprints: Sequence[str],
    *,
    visits: int = HISTORY,
) -> dict[str, list[tuple[str | None, float]]]:
    """(label, majority ratio) of each prompt's last groups, over all cycles of the tenant, oldest
    first; the label is None where the group abstained. A prompt that was never sampled is left out.
    """
    history: dict[str, list[tuple[str | None, float]]] = {}
    for start in range(0, len(fingerprints), CHUNK):
        newest = _newest_groups(tenant_id, fingerprints[start : start + CHUNK], visits)
        rows = await session.execute(
            select(Group.fingerprint, Group.label, Group.majority_ratio)
            .join(newest, newest.c.id == Group.id)
            .order_by(Group.id)
        )
        for fingerprint, label, majority_ratio in rows:
            visit = (label, float(majority_ratio or 0))
            history.setdefault(fingerprint, []).append(visit)
    return history


def _newest_groups(tenant_id: int, fingerprints: Sequence[str], visits: int) -> Subquery:
    """Ids of the last `visits` groups of each prompt that the engine did not refuse."""
    numbered = (
        select(
            Group.id,
            func.row_number()
            .over(partition_by=Group.fingerprint, order_by=Group.id.desc())
            .label("age"),
        )
        .where(
            Group.tenant_id == tenant_id,
            Group.majority_ratio.is_not(None),
            Group.fingerprint.in_(fingerprints),
        )
        .subquery()
    )
    return select(numbered.c.id).where(numbered.c.age <= visits).subquery()


async def count_reasons(session: AsyncSession, cycle_id: int) -> dict[str, int]:
    """How many of the cycle's groups were not trained on, by reason code."""
    rows = await session.execute(
        select(Group.reason, func.count())
        .where(Group.cycle_id == cycle_id, Group.reason.is_not(None))
        .group_by(Group.reason)
    )
    return {reason: count for reason, count in rows if reason is not None}
