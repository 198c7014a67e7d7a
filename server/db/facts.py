"""What the metrics say of the database: totals of cycles and swaps, and the newest step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from server.db.models import Cycle, CycleStep, Swap, Tenant


@dataclass(frozen=True, slots=True)
class SwapTotals:
    """All swaps of one reason; seconds."""

    count: int
    load_s: float
    flip_s: float


@dataclass(frozen=True, slots=True)
class Facts:
    """Of all tenants together. `newest_step` has the metrics of the step that was done last."""

    num_tenants: int
    cycles: Mapping[str, int]  # by status
    swaps: Mapping[str, SwapTotals]  # by reason
    newest_step: Mapping[str, Any]


def read_facts(connection: Connection) -> Facts:
    """Count. The tables have a row for a cycle, a swap, a step: thousands, not millions."""
    cycles = connection.execute(select(Cycle.status, func.count()).group_by(Cycle.status)).all()
    swaps = connection.execute(
        select(Swap.reason, func.count(), func.sum(Swap.load_ms), func.sum(Swap.flip_ms)).group_by(
            Swap.reason
        )
    )
    newest = connection.execute(
        select(CycleStep.metrics)
        .order_by(CycleStep.cycle_id.desc(), CycleStep.step.desc())
        .limit(1)
    ).scalar_one_or_none()
    num_tenants = connection.execute(
        select(func.count()).select_from(Tenant).where(Tenant.deleted_at.is_(None))
    ).scalar_one()
    return Facts(
        num_tenants=num_tenants,
        cycles={row[0]: row[1] for row in cycles},
        swaps={
            reason: SwapTotals(count, (load_ms or 0) / 1e3, (flip_ms or 0) / 1e3)
            for reason, count, load_ms, flip_ms in swaps
        },
        newest_step=newest or {},
    )
