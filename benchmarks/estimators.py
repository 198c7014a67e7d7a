"""Which way of learning from votes is best: arms of equal rollouts on the bundled model.

    python -m benchmarks.estimators [--seeds 3] [--arms majority,default] [--lanes 2]
        [--again | --report]

Each arm and seed is one cell, stored when it is done under var/bench/estimators; what is stored is
not run again, so the benchmark can be stopped and gone on with. Questions to learn from differ from
seed to seed, held-out questions are the same for all and were never asked, and both are the demo's.
`--again` draws anew what the weights of stored cells answer, and trains nothing. What the close
arms corrupt is too rare for these samples: benchmarks.corruption measures it on many prompts, from
the weights that are left here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from adapters.quality import Answered
from benchmarks.arms import ARMS, Arm
from benchmarks.estimators_report import report
from benchmarks.loop import Lane, Learning
from benchmarks.probing import POLICY, untouched_refused
from benchmarks.result import ROOT
from benchmarks.weak_additions import WEAK_ADDITION, weak_additions
from benchmarks.workbench import Workbench, workbench
from demo.questions import ADDITION, SUBTRACTION, Question, additions, subtractions
from server.adaptation.sampler import Policy
from server.adaptation.stopping import Measured, plateau
from server.adaptation.trainer import TrainerProcess

FOLDER = ROOT / "var" / "bench" / "estimators"
NUM_TRAFFIC = 128  # of which the first are measured before and after
NUM_MEASURED = 64
NUM_HELD_OUT = 96
CURVE_HELD_OUT, CURVE_SAMPLES, CURVE_EVERY = 64, 8, 5
SETTLED = 0.85  # held-out pass@1 from which on it is looked at more rarely
SAMPLES = 16
CLOSE = (
    "majority",
    "default",
    "oracle",
    "generic_views",
)  # held against each other to a few points
CLOSE_SAMPLES = 64
KEPT_EVERY = 5  # steps whose weights are kept: candidates for the gate's benchmark

DRAWS: Mapping[str, Callable[..., list[Question]]] = {
    ADDITION: additions,
    SUBTRACTION: subtractions,
    WEAK_ADDITION: weak_additions,
}


def traffic(kind: str, seed: int) -> list[Question]:
    """What a seed learns from."""
    return DRAWS[kind](1000 + seed, NUM_TRAFFIC)


def held_out(kind: str) -> list[Question]:
    """What every run is measured on."""
    return DRAWS[kind](5000, NUM_HELD_OUT, held_out=True)


def probe(kind: str) -> list[Question]:
    """What the gate asks."""
    return DRAWS[kind](7000, POLICY.probe_prompts)


def cell_path(arm: str, seed: int) -> Path:
    """Where a cell's figures are."""
    return FOLDER / f"{arm}-{seed}.json"


async def run_cell(bench: Workbench, trainer: TrainerProcess, arm: Arm, seed: int) -> None:
    """Measure, learn, measure; all of it stored at the end."""
    name = f"{arm.name}-{seed}"
    lane = Lane(bench, trainer, name, FOLDER / name)
    shutil.rmtree(lane.folder, ignore_errors=True)
    questions = traffic(arm.kind, seed)
    measured, fresh = questions[:NUM_MEASURED], held_out(arm.kind)
    before = await _measured(lane, bench, arm, seed, measured, fresh)
    if arm.foresees and (reasons := await untouched_refused(lane, arm, probe(arm.kind))):
        _store(arm, seed, before, before, [], reasons)  # the same weights
        return
    learning = Learning(lane, arm, questions, seed)
    await learning.begin()
    curve: list[dict[str, float]] = []
    best = 0.0
    while learning.num_rollouts < arm.rollouts:
        metrics = await learning.advance()
        step = learning.step
        if step % (CURVE_EVERY if best < SETTLED else 4 * CURVE_EVERY) == 0:
            seen = await lane.answers(
                learning.policy, arm, fresh[:CURVE_HELD_OUT], CURVE_SAMPLES, f"curve {step}"
            )
            metrics["held_out"] = sum(a.mean for a in seen) / len(seen)
            best = max(best, metrics["held_out"])
            print(f"{name} step {step}: held-out {metrics['held_out']:.3f}", flush=True)
        totals = {"step": step, "tokens": learning.num_tokens, "rollouts": learning.num_rollouts}
        curve.append(totals | {"seconds": learning.seconds} | metrics)
        _forget(lane.folder, step - 1)
    await learning.end()
    _store(arm, seed, before, await _after(lane, arm, seed, curve), curve)


def _store(
    arm: Arm,
    seed: int,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    curve: Sequence[Mapping[str, float]],
    refused: Sequence[str] = (),
) -> None:
    cell = {"arm": arm.name, "seed": seed, "kind": arm.kind, "before": before, "after": after}
    cell |= {"curve": curve, "refused": refused}
    cell_path(arm.name, seed).write_text(json.dumps(cell))


async def measure_again(bench: Workbench, trainer: TrainerProcess, arm: Arm, seed: int) -> None:
    """What the weights of a stored cell answer, drawn anew."""
    path, name = cell_path(arm.name, seed), f"{arm.name}-{seed}"
    cell = json.loads(path.read_text())
    lane = Lane(bench, trainer, name, FOLDER / name)
    if not cell["curve"]:
        return
    cell["after"] = await _after(lane, arm, seed, cell["curve"])
    path.write_text(json.dumps(cell))


async def _after(
    lane: Lane, arm: Arm, seed: int, curve: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """What the weights that a run came to answer; they are still in its folder."""
    learned = await come_to(lane, arm, curve)
    num_samples = CLOSE_SAMPLES if arm.name in CLOSE else SAMPLES
    questions = traffic(arm.kind, seed)[:NUM_MEASURED]
    after = {
        "held_out": await lane.answers(learned, arm, held_out(arm.kind), num_samples, "after"),
        "traffic": await lane.answers(learned, arm, questions, SAMPLES, "traffic after"),
    }
    await lane.bench.sampler.forget(learned.engine_name)
    return {side: plain(answered) for side, answered in after.items()}


async def come_to(lane: Lane, arm: Arm, curve: Sequence[Mapping[str, float]]) -> Policy:
    """The weights that a run came to."""
    return await _settled(lane, arm, curve) if arm.average else _last(lane)


def _last(lane: Lane) -> Policy:
    step = _kept(lane)[-1]
    return Policy(f"{lane.name}-s{step}", str(lane.folder / f"s{step}"))


def _kept(lane: Lane) -> list[int]:
    """The steps whose weights are in the folder."""
    return sorted(int(place.name[1:]) for place in lane.folder.glob("s*"))


async def _settled(lane: Lane, arm: Arm, curve: Sequence[Mapping[str, float]]) -> Policy:
    """As a cycle does (server.adaptation.settling), but of the steps that were kept."""
    kept = _kept(lane)
    measured = [Measured(int(point["step"]) - 1, point) for point in curve]
    good = plateau(measured, reached=kept[-1])
    return await lane.average(arm, [step for step in kept if step in good])


async def _measured(
    lane: Lane,
    bench: Workbench,
    arm: Arm,
    seed: int,
    questions: Sequence[Question],
    fresh: Sequence[Question],
) -> dict[str, Any]:
    """The untouched model on a seed's questions: the same for all arms, so measured once."""
    path = FOLDER / f"before-{arm.kind.replace(' ', '_')}-{seed}.json"
    if not path.exists():
        before = {
            "held_out": await lane.answers(bench.start, arm, fresh, SAMPLES, "before"),
            "traffic": await lane.answers(bench.start, arm, questions, SAMPLES, "traffic before"),
        }
        path.write_text(json.dumps({side: plain(found) for side, found in before.items()}))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def plain(answered: Sequence[Answered]) -> list[list[Any]]:
    """As JSON."""
    return [[a.truth, list(a.answers)] for a in answered]


def _forget(folder: Path, step: int) -> None:
    if step % KEPT_EVERY:
        shutil.rmtree(folder / f"s{step}", ignore_errors=True)


Cell = Callable[[Workbench, TrainerProcess, Arm, int], Awaitable[None]]


async def run(cells: Sequence[tuple[Arm, int]], lanes: int, *, again: bool = False) -> None:
    """All cells that are not there yet, or all that are there again; `lanes` at a time."""
    missing = deque(cell for cell in cells if cell_path(cell[0].name, cell[1]).exists() == again)
    work: Cell = measure_again if again else run_cell
    if not missing:
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    async with workbench(ROOT / "var" / "bench", num_trainers=lanes) as bench:

        async def lane(trainer: TrainerProcess) -> None:
            while missing:
                arm, seed = missing.popleft()
                started = perf_counter()
                await work(bench, trainer, arm, seed)
                print(f"{arm.name}-{seed}: {perf_counter() - started:.0f} s", flush=True)

        async with asyncio.TaskGroup() as tasks:
            for trainer in bench.trainers:
                tasks.create_task(lane(trainer))


def main() -> None:
    """Run what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--lanes", type=int, default=2, help="runs at the same time")
    parser.add_argument("--again", action="store_true", help="only draw anew what cells answer")
    parser.add_argument("--report", action="store_true", help="run nothing")
    options = parser.parse_args()
    arms = [ARMS[name] for name in options.arms.split(",")]
    cells = [(arm, seed) for seed in range(1, options.seeds + 1) for arm in arms]
    if not options.report:
        asyncio.run(run(cells, options.lanes, again=options.again))
    paths = [cell_path(arm.name, seed) for arm, seed in cells]
    report([json.loads(path.read_text()) for path in paths if path.exists()])


if __name__ == "__main__":
    main()
