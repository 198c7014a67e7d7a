"""What learning costs: TRL's GRPOTrainer against ours, on the same model and questions.

    python -m benchmarks.learner [--rounds 3] [--seeds 3] [--only losses,cost,quality] [--report]

Both learn with the same LoRA, learning rate and clip from 8 questions a step, in float32 on CPU,
each in a process of its own, none with more than two threads, from 32 samples a question; our
default draws 12, so TRL is also run with 12. TRL samples in its own process, as it does by default;
ours samples from a supervised vLLM. The parts:

- losses: TRL's loss on given tensors, written by TRL itself, against ours.
- cost: rounds of TRL's steps, in micro-batches of 32 and of 8 samples, our updates on the batches
  that TRL has just sampled, and our steps. The first step of each is a warm-up. A ratio is that of
  one round's medians, to TRL's faster one, and what is claimed is the median over rounds.
- quality: from the untouched model until held-out pass@1 is .75, with the evaluations off the
  clock, and between two looks at held-out questions, which come after two updates everywhere, the
  time is interpolated. Starting up is not on the clock either; it is in the data. `twice` is two
  updates of each batch, which both sides can do.

Each part is stored when it is done under var/bench/learner; what is stored is not run again, so the
benchmark can be stopped and gone on with. `--report` only reads.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.learner_report import Files, is_done, report
from benchmarks.result import ROOT

FOLDER = ROOT / "var" / "bench" / "learner"
TRL = ROOT / "var" / "envs" / "trl" / "bin" / "python"
MODEL = ROOT / "demo" / "model"
THREADS = 2
COST_STEPS = 5
QUALITY_STEPS = 40
AHEAD_STEPS = 20  # all of them are done, and evaluated afterwards
AHEAD = ("--ahead", "--threads", "1")  # the engine has the other core meanwhile
TWICE = ("--updates", "2")  # of a batch; TRL counts each of them as a step
FEW = ("--samples", "12", "--micro-batch", "24")  # of TRL: as many as our default draws
SMALL = ("--micro-batch", "8")  # TRL's default: as fast here, with less memory
EVALUATION = ("--evaluate-every", "2", "--held-out-samples", "8", "--target", "0.75")
PARTS = ("losses", "cost", "quality")


@dataclass(frozen=True, slots=True)
class Run:
    """One process, and the file that it writes."""

    part: str
    command: tuple[str, ...]
    out: Path


def runs(files: Files, *, rounds: int, seeds: int) -> Iterator[Run]:
    """Everything, in the order in which it is run: sides alternate."""
    yield Run("losses", _trl("losses", files.losses), files.losses)
    for number in range(1, rounds + 1):
        steps = ("--steps", str(COST_STEPS), "--seed", str(number))
        batches = ("--batches", str(files.folder / f"batches-{number}"))
        out = files.cost("trl", number)
        yield Run("cost", (*_trl("train", out), *steps, *batches), out)
        out = files.cost("trl-8", number)
        yield Run("cost", (*_trl("train", out), *steps, *SMALL), out)
        out = files.cost("update", number)
        yield Run("cost", (*_ours("update", out), *batches), out)
        out = files.cost("learn", number)
        yield Run("cost", (*_ours("learn", out), "--arm", "majority", *steps), out)
        out = files.cost("ahead", number)
        yield Run("cost", (*_ours("learn", out), "--arm", "majority", *steps, *AHEAD), out)
    for seed in range(1, seeds + 1):
        until = ("--seed", str(seed), *EVALUATION)
        steps = ("--steps", str(QUALITY_STEPS), *until)
        for arm in ("majority", "default"):
            out = files.quality(arm, seed)
            yield Run("quality", (*_ours("learn", out), "--arm", arm, *steps), out)
        out, steps_ahead = files.quality("ahead", seed), ("--steps", str(AHEAD_STEPS), *until)
        yield Run("quality", (*_ours("learn", out), "--arm", "default", *steps_ahead, *AHEAD), out)
        out, each = files.quality("twice", seed), ("--evaluate-every", "1")
        options = ("--arm", "default", *steps_ahead, *AHEAD, *TWICE, *each)
        yield Run("quality", (*_ours("learn", out), *options), out)
        out = files.quality("trl", seed)
        yield Run("quality", (*_trl("train", out), *steps), out)
        out = files.quality("trl-twice", seed)
        yield Run("quality", (*_trl("train", out), *steps, *TWICE), out)
        out = files.quality("trl-12", seed)
        yield Run("quality", (*_trl("train", out), *steps, *FEW), out)
        out = files.quality("trl-12-twice", seed)
        yield Run("quality", (*_trl("train", out), *steps, *FEW, *TWICE), out)


def _trl(module: str, out: Path) -> tuple[str, ...]:
    script = f"benchmarks.peers.trl.{module}"
    return (str(TRL), "-m", script, "--model", str(MODEL), "--out", str(out))


def _ours(mode: str, out: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "benchmarks.learner_ours", mode, "--out", str(out))


def perform(run: Run) -> None:
    """Run one process to its end. Raises CalledProcessError."""
    log = run.out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(THREADS),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with log.open("wb") as output:
        subprocess.run(
            run.command,
            check=True,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def main() -> None:
    """Run what is missing, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learner")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument("--at-most", type=int, default=sys.maxsize, help="processes in this call")
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    files = Files(FOLDER)
    wanted = arguments.only.split(",")
    missing = [
        run
        for run in runs(files, rounds=arguments.rounds, seeds=arguments.seeds)
        if run.part in wanted and not is_done(run.out)
    ]
    for run in [] if arguments.report else missing[: arguments.at_most]:
        print(f"{run.part}: {run.out.stem}", flush=True)
        perform(run)
    path = report(files, rounds=arguments.rounds, seeds=arguments.seeds)
    print(path)
    if any(files.folder.glob("quality-*.jsonl")):  # else there is nothing to draw
        picture = ("-m", "benchmarks.peers.trl.plot", "--result", str(path))
        subprocess.run([str(TRL), *picture], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
