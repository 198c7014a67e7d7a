"""What the demo's tests share: results in which every promise is kept, and a scripted endpoint."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ttrl_client.types import Cycle, Query, Swap

from demo.asking import Exchange
from demo.audit import Requests
from demo.measure import Measured
from demo.report import Report, Seconds, SwapTimes, TenantResult

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """A time of the tests' day."""
    return NOON + timedelta(seconds=seconds)


def cycle_of(tenant: str, **changes: Any) -> Cycle:
    """A finished cycle, promoted unless said otherwise."""
    fields: dict[str, Any] = {
        "id": 1,
        "tenant": tenant,
        "trigger": "manual",
        "status": "promoted",
        "phase": None,
        "seed": 0,
        "parent_version": 0,
        "candidate_version": 1,
        "steps_planned": 20,
        "steps_done": 20,
        "num_rollouts": 5280,
        "selection": None,
        "decision": "promoted",
        "reasons": [],
        "incumbent": None,
        "candidate": None,
        "error": None,
        "attempts": 1,
        "created_at": at(0),
        "started_at": at(1),
        "finished_at": at(101),
    }
    return Cycle.model_validate(fields | changes)


def exchange_of(**changes: Any) -> Exchange:
    """An answered request of the adder on version 0."""
    fields: dict[str, Any] = {
        "tenant": "adder",
        "started_at": at(10),
        "ended_at": at(11),
        "streamed": False,
        "stored": True,
        "request_id": "chatcmpl-1",
        "adapter": "adder--v0",
        "texts": ("\\boxed{3}",),
        "problem": None,
    }
    return Exchange(**(fields | changes))


def swap_of(tenant: str, to_version: int, seconds: float, **changes: Any) -> Swap:
    """A pointer that moved at a time of the tests' day."""
    fields: dict[str, Any] = {
        "tenant": tenant,
        "from_version": 0,
        "to_version": to_version,
        "reason": "promoted",
        "load_ms": 8.0,
        "flip_ms": 1.5,
        "created_at": at(seconds),
    }
    return Swap.model_validate(fields | changes)


def query_of(request_id: str, version: int = 0) -> Query:
    """A logged request."""
    return Query.model_validate(
        {
            "id": request_id,
            "route": "chat",
            "prompt": [],
            "params": {},
            "answers": [],
            "adapter_version": version,
            "stream": False,
            "status": "ok",
            "eligible": True,
            "reason": None,
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "latency_ms": 1.0,
            "first_byte_ms": None,
            "created_at": at(10),
        }
    )


@pytest.fixture
def kept() -> Report:
    """A report in which every promise is kept."""
    before, after = Measured(64, 16, 0.35, 0.8), Measured(64, 16, 0.86, 0.9)
    rejected = cycle_of(
        "novice",
        status="rejected",
        decision="rejected",
        candidate_version=None,
        reasons=["view_agreement: 0.21 < 0.70"],
    )
    return Report(
        adder=TenantResult(before, after, cycle_of("adder"), live_version=1),
        novice=TenantResult(before, Measured(64, 4, 0.34, 0.5), rejected, live_version=0),
        requests=Requests(
            total=1200,
            while_cycles_ran=600,
            streamed=500,
            opted_out=300,
            failed=0,
            wrong_version=0,
            not_logged=0,
            logged_against_wish=0,
        ),
        swap=SwapTimes(8.0, 1.5, 30.0, 300.0, is_proven=True),
        seconds=Seconds(20, 50, 10, 20, 200, 20, 330),
    )
