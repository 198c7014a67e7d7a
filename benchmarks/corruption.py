"""Which prompts learning corrupts: the weights that cells of benchmarks.estimators came to, on many
prompts.

    python -m benchmarks.corruption [--seeds 3] [--arms majority,default] [--again | --report]

Few prompts are corrupted at all, so it takes many to tell arms apart: all that a seed learned from,
and fresh held-out ones, which are the same for all seeds. The untouched model and the weights of
each cell answer the same questions equally often; nothing is trained. What is measured is stored
under var/bench/corruption, and not measured again unless with `--again`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.arms import ARMS, Arm
from benchmarks.corruption_report import report
from benchmarks.estimators import DRAWS, FOLDER, cell_path, come_to, plain, traffic
from benchmarks.loop import Lane
from benchmarks.result import ROOT
from benchmarks.workbench import Workbench, workbench
from demo.questions import ADDITION, Question

MEASURED = ROOT / "var" / "bench" / "corruption"
COMPARED = ("majority", "default")
NUM_FRESH = 512
SAMPLES = 32  # of a question, before and after


def fresh(kind: str) -> list[Question]:
    """What no run learned from."""
    return DRAWS[kind](9000, NUM_FRESH, held_out=True)


def sides(kind: str, seed: int) -> dict[str, list[Question]]:
    """The questions of a seed, by where they are from."""
    return {"trained": traffic(kind, seed), "fresh": fresh(kind)}


def measured_path(arm: str, seed: int) -> Path:
    """Where it is kept what a cell's weights answered."""
    return MEASURED / f"{arm}-{seed}.json"


def _before_path(side: str, seed: int) -> Path:
    return MEASURED / (f"before-{side}-{seed}.json" if side == "trained" else f"before-{side}.json")


async def measure_before(bench: Workbench, seed: int) -> None:
    """What the untouched model answers: once, for all arms."""
    lane = Lane(bench, bench.trainers[0], f"before-{seed}", MEASURED)
    for side, questions in sides(ADDITION, seed).items():
        path = _before_path(side, seed)
        if not path.exists():
            arm = ARMS["majority"]
            found = await lane.answers(bench.start, arm, questions, SAMPLES, f"{side} before")
            path.write_text(json.dumps(plain(found)))


async def measure(bench: Workbench, arm: Arm, seed: int) -> None:
    """What a cell's weights answer."""
    name = f"{arm.name}-{seed}"
    lane = Lane(bench, bench.trainers[0], name, FOLDER / name)
    curve = json.loads(cell_path(arm.name, seed).read_text())["curve"]
    learned = await come_to(lane, arm, curve)
    after = {
        side: plain(await lane.answers(learned, arm, questions, SAMPLES, f"{side} many"))
        for side, questions in sides(ADDITION, seed).items()
    }
    await bench.sampler.forget(learned.engine_name)
    measured_path(arm.name, seed).write_text(json.dumps(after))


async def run(cells: Sequence[tuple[Arm, int]], *, again: bool) -> None:
    """Measure the cells that are there and were not measured yet, or all of them again."""
    missing = [
        (arm, seed)
        for arm, seed in cells
        if cell_path(arm.name, seed).exists()
        and (again or not measured_path(arm.name, seed).exists())
    ]
    if not missing:
        return
    MEASURED.mkdir(parents=True, exist_ok=True)
    async with workbench(ROOT / "var" / "bench", num_trainers=1) as bench:
        for arm, seed in missing:
            started = perf_counter()
            await measure_before(bench, seed)
            await measure(bench, arm, seed)
            print(f"{arm.name}-{seed}: {perf_counter() - started:.0f} s", flush=True)


def found(arm: str, seed: int) -> list[dict[str, Any]]:
    """Every question of a cell, with what was answered before and after."""
    after = json.loads(measured_path(arm, seed).read_text())
    return [
        {"arm": arm, "seed": seed, "side": side, "question": question.text}
        | {"before": before, "after": then}
        for side, questions in sides(ADDITION, seed).items()
        for question, before, then in zip(
            questions, json.loads(_before_path(side, seed).read_text()), after[side], strict=True
        )
    ]


def main() -> None:
    """Measure what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", default=",".join(COMPARED))
    parser.add_argument("--again", action="store_true", help="draw anew what weights answer")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    arms = [ARMS[name] for name in options.arms.split(",")]
    if any(arm.kind != ADDITION for arm in arms):
        parser.error("only arms that learn ordinary additions")
    cells = [(arm, seed) for seed in range(1, options.seeds + 1) for arm in arms]
    if not options.report:
        asyncio.run(run(cells, again=options.again))
    there = [(arm, seed) for arm, seed in cells if measured_path(arm.name, seed).exists()]
    report([one for arm, seed in there for one in found(arm.name, seed)])


if __name__ == "__main__":
    main()
