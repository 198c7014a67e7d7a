"""The promises: all kept, and each broken once; and the report's keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ttrl_client.types import CycleStatus

from demo.measure import Measured
from demo.report import PROMISES, Report, as_json, broken_promises, write


def _swap_changed(report: Report, **changes: float | bool) -> Report:
    assert report.swap is not None
    return replace(report, swap=replace(report.swap, **changes))


def _adder_after(report: Report, measured: Measured) -> Report:
    return replace(report, adder=replace(report.adder, after=measured))


BREAKS: dict[str, Callable[[Report], Report]] = {
    "adder: pass@1 after": lambda r: _adder_after(r, Measured(64, 16, 0.74, 0.9)),
    "adder: gain in pass@1": lambda r: replace(
        r, adder=replace(r.adder, before=Measured(64, 16, 0.62, 0.9))
    ),
    "adder: decision": lambda r: replace(
        r,
        adder=replace(r.adder, cycle=r.adder.cycle.model_copy(update={"decision": "rejected"})),
    ),
    "adder: serves an adapted version": lambda r: replace(
        r, adder=replace(r.adder, live_version=0)
    ),
    "novice: decision": lambda r: replace(
        r,
        novice=replace(
            r.novice,
            cycle=r.novice.cycle.model_copy(
                update={"decision": None, "status": CycleStatus.SKIPPED}
            ),
        ),
    ),
    "novice: serves version": lambda r: replace(r, novice=replace(r.novice, live_version=1)),
    "fresh questions in each measurement": lambda r: _adder_after(r, Measured(63, 16, 0.86, 0.9)),
    "samples of each fresh question": lambda r: _adder_after(r, Measured(64, 3, 0.86, 0.9)),
    "requests while cycles ran": lambda r: replace(
        r, requests=replace(r.requests, while_cycles_ran=499)
    ),
    "failed requests": lambda r: replace(r, requests=replace(r.requests, failed=1)),
    "requests answered by a wrong version": lambda r: replace(
        r, requests=replace(r.requests, wrong_version=1)
    ),
    "requests not logged exactly once": lambda r: replace(
        r, requests=replace(r.requests, not_logged=1)
    ),
    "store=False requests logged": lambda r: replace(
        r, requests=replace(r.requests, logged_against_wish=1)
    ),
    "rollback": lambda r: _swap_changed(r, rollback_ms=1000.0),
    "rollback and return are served": lambda r: _swap_changed(r, is_proven=False),
    "total time": lambda r: replace(r, seconds=replace(r.seconds, total=600.1)),
}


def test_nothing_is_broken_when_every_promise_is_kept(kept: Report) -> None:
    assert broken_promises(kept) == []


def test_every_promise_has_its_break() -> None:
    assert set(BREAKS) == {promise.name for promise in PROMISES}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_promise_is_named_and_no_other(kept: Report, name: str) -> None:
    broken = broken_promises(BREAKS[name](kept))
    assert [line.split(": ")[:-1] for line in broken] == [name.split(": ")]


def test_a_broken_promise_tells_its_numbers(kept: Report) -> None:
    assert broken_promises(_swap_changed(kept, rollback_ms=1234.5)) == [
        "rollback: 1234.5, promised < 1000 ms"
    ]


def test_without_a_promotion_there_was_no_rollback(kept: Report) -> None:
    broken = broken_promises(replace(kept, swap=None))
    assert [line.partition(":")[0] for line in broken] == [
        "rollback",
        "rollback and return are served",
    ]


def test_the_report_has_the_promised_keys(kept: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write(kept, path)
    report = json.loads(path.read_text(encoding="utf-8"))
    adder, novice = report["tenants"]["adder"], report["tenants"]["novice"]
    assert adder["heldout_pass_at_1"] == {"before": 0.35, "after": 0.86}
    assert (adder["maj_at_16_before"], adder["decision"]) == (0.8, "promoted")
    assert (adder["steps"], adder["rollouts"]) == (20, 5280)
    assert (novice["decision"], novice["reasons"]) == ("rejected", ["view_agreement: 0.21 < 0.70"])
    assert novice["heldout_pass_at_1"] == {"before": 0.35, "after": 0.34}
    requests = report["requests"]
    counts = [requests[key] for key in ("total", "failed", "wrong_version", "not_logged")]
    assert counts == [1200, 0, 0, 0]
    assert {"load_ms": 8.0, "flip_ms": 1.5, "rollback_ms": 30.0}.items() <= report["swap"].items()
    assert {"setup", "engine_start", "adaptation", "total"} <= report["seconds"].keys()


def test_the_claims_say_whether_they_hold(kept: Report) -> None:
    broken = as_json(replace(kept, seconds=replace(kept.seconds, total=700.0)))
    held = {claim["name"]: claim["holds"] for claim in broken["claims"]}
    assert held.pop("total time") is False
    assert all(held.values())


def test_a_report_without_swaps_is_still_written(kept: Report) -> None:
    assert as_json(replace(kept, swap=None))["swap"] == {
        "load_ms": None,
        "flip_ms": None,
        "rollback_ms": None,
        "rollback_seen_ms": None,
    }
