"""What the demo found, as `report.json`, and the promises that it must keep."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ttrl_client.types import Cycle, EvaluationReport

from demo.audit import Requests
from demo.machine import commit_hash, machine_facts
from demo.measure import Measured
from demo.plan import ADDER, NOVICE


@dataclass(frozen=True, slots=True)
class TenantResult:
    """One tenant's way through the demo. `live_version` is the one that serves at the end."""

    before: Measured
    after: Measured
    cycle: Cycle
    live_version: int

    @property
    def gain(self) -> float:
        """Rise of pass@1 on fresh questions."""
        return self.after.pass_at_1 - self.before.pass_at_1

    @property
    def decision(self) -> str:
        """The gate's decision; how the cycle ended where the gate was not asked."""
        return self.cycle.decision or self.cycle.status.value


@dataclass(frozen=True, slots=True)
class SwapTimes:
    """Milliseconds: of the promotion's swap, and of one rollback as the client saw it."""

    load_ms: float
    flip_ms: float
    rollback_ms: float  # the call
    rollback_seen_ms: float  # until a request was answered by the version before
    is_proven: bool  # whether the versions answered that should have, there and back


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long the parts took; `total` includes `setup`."""

    setup: float
    engine_start: float
    traffic: float
    measure_before: float
    adaptation: float
    measure_after: float
    total: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the demo found."""

    adder: TenantResult
    novice: TenantResult
    requests: Requests
    swap: SwapTimes | None  # None: nothing was promoted, so there was nothing to roll back
    seconds: Seconds


@dataclass(frozen=True, slots=True)
class Promise:
    """A claim with its target: `value op target` must hold; without a value it does not."""

    name: str
    value: Callable[[Report], float | str | None]
    op: Literal["<=", "<", ">=", "=="]
    target: float | str
    unit: str = ""

    def holds(self, report: Report) -> bool:
        """Whether the report keeps it."""
        value: Any = self.value(report)
        target: Any = self.target
        if value is None:
            return False
        match self.op:
            case "<=":
                return value <= target
            case "<":
                return value < target
            case ">=":
                return value >= target
            case "==":
                return value == target


def _least_questions(report: Report) -> int:
    results = (report.adder, report.novice)
    return min(m.questions for result in results for m in (result.before, result.after))


def _least_samples(report: Report) -> int:
    results = (report.adder, report.novice)
    return min(m.samples_per_question for result in results for m in (result.before, result.after))


PROMISES = (
    Promise("adder: pass@1 after", lambda r: r.adder.after.pass_at_1, ">=", 0.75),
    Promise("adder: gain in pass@1", lambda r: r.adder.gain, ">=", 0.25),
    Promise("adder: decision", lambda r: r.adder.decision, "==", "promoted"),
    Promise("adder: serves an adapted version", lambda r: r.adder.live_version, ">=", 1),
    Promise("novice: decision", lambda r: r.novice.decision, "==", "rejected"),
    Promise("novice: serves version", lambda r: r.novice.live_version, "==", 0),
    Promise("fresh questions in each measurement", _least_questions, ">=", 64),
    Promise("samples of each fresh question", _least_samples, ">=", 4),
    Promise("requests while cycles ran", lambda r: r.requests.while_cycles_ran, ">=", 500),
    Promise("failed requests", lambda r: r.requests.failed, "==", 0),
    Promise("requests answered by a wrong version", lambda r: r.requests.wrong_version, "==", 0),
    Promise("requests not logged exactly once", lambda r: r.requests.not_logged, "==", 0),
    Promise("store=False requests logged", lambda r: r.requests.logged_against_wish, "==", 0),
    Promise("rollback", lambda r: r.swap and r.swap.rollback_ms, "<", 1000, "ms"),
    Promise("rollback and return are served", lambda r: r.swap and r.swap.is_proven, "==", True),
    Promise("total time", lambda r: r.seconds.total, "<=", 600, "s"),
)


def broken_promises(report: Report) -> list[str]:
    """Each broken promise with its numbers; empty when all hold."""
    return [
        f"{promise.name}: {_shown(promise.value(report))}, promised"
        f" {promise.op} {_shown(promise.target)}{promise.unit and ' '}{promise.unit}"
        for promise in PROMISES
        if not promise.holds(report)
    ]


def as_json(report: Report) -> dict[str, Any]:
    """The report in the form of all benchmark results, with the figures by name on top."""
    results = {ADDER.name: report.adder, NOVICE.name: report.novice}
    return {
        "name": "demo",
        "commit": commit_hash(),
        "machine": machine_facts(),
        "tenants": {name: _tenant(result) for name, result in results.items()},
        "requests": {
            "total": report.requests.total,
            "while_cycles_ran": report.requests.while_cycles_ran,
            "streamed": report.requests.streamed,
            "opted_out": report.requests.opted_out,
            "failed": report.requests.failed,
            "wrong_version": report.requests.wrong_version,
            "not_logged": report.requests.not_logged,
            "logged_against_wish": report.requests.logged_against_wish,
            "examples": list(report.requests.examples),
        },
        "swap": _swap(report.swap),
        "seconds": {
            "setup": round(report.seconds.setup, 1),
            "engine_start": round(report.seconds.engine_start, 1),
            "traffic": round(report.seconds.traffic, 1),
            "measure_before": round(report.seconds.measure_before, 1),
            "adaptation": round(report.seconds.adaptation, 1),
            "measure_after": round(report.seconds.measure_after, 1),
            "total": round(report.seconds.total, 1),
        },
        "claims": [_claim(promise, report) for promise in PROMISES],
        "broken_promises": broken_promises(report),
    }


def write(report: Report, path: Path) -> None:
    """Write the report; it appears whole or not at all."""
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(as_json(report), indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def _tenant(result: TenantResult) -> dict[str, Any]:
    before, after, cycle = result.before, result.after, result.cycle
    return {
        "heldout_pass_at_1": {
            "before": round(before.pass_at_1, 4),
            "after": round(after.pass_at_1, 4),
        },
        f"maj_at_{before.samples_per_question}_before": round(before.majority, 4),
        f"maj_at_{after.samples_per_question}_after": round(after.majority, 4),
        "questions": {"before": before.questions, "after": after.questions},
        "samples_per_question": {
            "before": before.samples_per_question,
            "after": after.samples_per_question,
        },
        "decision": result.decision,
        "reasons": cycle.reasons,
        "steps": cycle.steps_done,
        "rollouts": cycle.num_rollouts,
        "live_version": result.live_version,
        "cycle_seconds": round(cycle_seconds(cycle), 1),
        "probe": {
            "incumbent": _evaluated(cycle.incumbent),
            "candidate": _evaluated(cycle.candidate),
        },
        "error": cycle.error,
    }


def cycle_seconds(cycle: Cycle) -> float:
    """From the moment that a worker took it up to its end; 0 if it never ran."""
    if cycle.started_at is None or cycle.finished_at is None:
        return 0.0
    return (cycle.finished_at - cycle.started_at).total_seconds()


def _swap(swap: SwapTimes | None) -> dict[str, float | None]:
    return {
        "load_ms": swap and round(swap.load_ms, 2),
        "flip_ms": swap and round(swap.flip_ms, 2),
        "rollback_ms": swap and round(swap.rollback_ms, 2),
        "rollback_seen_ms": swap and round(swap.rollback_seen_ms, 2),
    }


def _evaluated(evaluation: EvaluationReport | None) -> dict[str, Any] | None:
    return None if evaluation is None else evaluation.model_dump(mode="json")


def _claim(promise: Promise, report: Report) -> dict[str, Any]:
    return {
        "name": promise.name,
        "value": promise.value(report),
        "unit": promise.unit,
        "op": promise.op,
        "target": promise.target,
        "holds": promise.holds(report),
    }


def _shown(value: float | str | None) -> str:
    if value is None:
        return "no value"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
