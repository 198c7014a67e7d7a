"""From the events of the learner's benchmark to its claims."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.learner_losses import differences
from benchmarks.result import Claim, write_result

TARGET = 0.75  # held-out pass@1
NEVER = 99.0  # the ratio where ours has not reached the target
WARM_UP = 1  # steps
Event = dict[str, Any]
OURS = {
    "default": "our default",
    "ahead": "our default with a batch ahead",
    "twice": "our default with a batch ahead and two updates of each",
    "majority": "our majority",
}
TRL = {
    "trl": "TRL's majority",
    "trl-twice": "TRL's majority with two updates of each batch",
    "trl-12": "TRL's majority of 12 samples",
    "trl-12-twice": "TRL's majority of 12 samples with two updates of each batch",
}


@dataclass(frozen=True, slots=True)
class Files:
    """Where each process writes."""

    folder: Path

    @property
    def losses(self) -> Path:
        """TRL's losses on given tensors."""
        return self.folder / "losses.json"

    def cost(self, side: str, number: int) -> Path:
        """A round of `trl`, `trl-8` (in micro-batches of 8), `update` (ours, on TRL's batches),
        `learn` (ours), or `ahead` (the same with a batch ahead).
        """
        return self.folder / f"cost-{side}-{number}.jsonl"

    def quality(self, side: str, seed: int) -> Path:
        """A run of `majority`, `default`, `ahead` (the default with a batch ahead), `twice` (the
        same with two updates of each batch); or of `trl`, `trl-12` (with as many samples as the
        default has), and each of these with `-twice`.
        """
        return self.folder / f"quality-{side}-{seed}.jsonl"


def events_of(path: Path) -> list[Event]:
    """What a process has written so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def is_done(path: Path) -> bool:
    """Whether the process that writes a file has come to its end."""
    if path.suffix == ".json":
        return path.exists()
    events = events_of(path)
    return bool(events) and events[-1]["event"] == "done"


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians over a round's steps, without the first."""

    update_us: float  # a trained token
    update_cpu_us: float  # processor time, likewise
    update_mib: float  # most resident during an update
    step_s: float | None = None  # with sampling

    @classmethod
    def of(cls, events: Sequence[Event]) -> Cost:
        """From a process's events."""
        steps = [event for event in events if event["event"] == "step"][WARM_UP:]

        def a_token(name: str) -> float:
            return median(step[name] / step["num_tokens"] for step in steps) * 1e6

        return cls(
            update_us=a_token("update_s"),
            update_cpu_us=a_token("update_cpu_s"),
            update_mib=max(step["update_mib"] for step in steps),
            step_s=median(step["seconds"] for step in steps) if "seconds" in steps[0] else None,
        )


def reached_s(events: Sequence[Event]) -> float | None:
    """Seconds of learning until the target, interpolated between two looks; None: not reached."""
    looks = [event for event in events if event["event"] == "evaluated"]
    for before, after in pairwise(looks):
        low, high = before["pass_at_1"], after["pass_at_1"]
        if high >= TARGET:
            share = (TARGET - low) / (high - low)
            return before["train_s"] + share * (after["train_s"] - before["train_s"])
    return None


def report(files: Files, *, rounds: int, seeds: int) -> Path:
    """Write the result of what there is."""
    numbers = [n for n in range(1, rounds + 1) if is_done(files.cost("ahead", n))]
    made = [*_loss_claims(files), *_cost_claims(files, numbers), *_quality_claims(files, seeds)]
    data = {
        "cost": [_round(files, number) for number in numbers],
        "quality": _curves(files, seeds),
        "notes": NOTES,
    }
    return write_result("learner", made, data)


NOTES = (
    "TRL samples with model.generate in its own process; vLLM does not run on CPU inside TRL.",
    "Ours samples from vLLM in processes of their own, whose memory is not in update_mib: "
    "all_processes_mib has engine, trainer and benchmark together.",
    "The engine serves with its default of all cores but one; the trainer has two threads here, "
    "and one where a batch is ahead, because then both work at the same time.",
    "TRL without gradient checkpointing; its micro-batches of 8, 16 and 32 samples take the same "
    "time here, larger ones take more memory. About 350 MiB of each process are its libraries.",
    "Two fifths to half of the tokens of these short answers are left once what samples have in "
    "common is computed once, which TRL does not do; where samples only share prompts, an update "
    "took .50 to .55 of TRL's time.",
    "Starting up is on no clock: about a minute for ours, nearly all of it vLLM's, some seconds "
    "for TRL.",
)


def _loss_claims(files: Files) -> list[Claim]:
    if not is_done(files.losses):
        return []
    found = differences(files.losses)
    worst = max(max(one.loss, one.gradient) for one in found)
    name = f"largest difference to TRL's loss or gradients, {len(found)} cases"
    return [Claim(name, worst, "nats", "<=", 1e-6)]


def _cost_claims(files: Files, numbers: Sequence[int]) -> list[Claim]:
    if not numbers:
        return []
    found = [_round(files, number) for number in numbers]

    def claim(
        name: str, side: str, key: str, target: float, theirs: Sequence[str] = ("trl", "trl-8")
    ) -> Claim:
        ratio = median(one[side][key] / min(one[name][key] for name in theirs) for one in found)
        return Claim(f"{name}, of TRL's", round(ratio, 3), "ratio", "<=", target)

    memory = "peak memory of the update, {} samples at a time"
    return [
        claim("update time a trained token, same batches", "update", "update_us", 0.5),
        claim(memory.format(32), "update", "update_mib", 0.6, ("trl",)),
        claim(memory.format(8), "update", "update_mib", 0.6, ("trl-8",)),
        claim("whole step with sampling", "learn", "step_s", 0.6),
        claim("whole step with a batch ahead", "ahead", "step_s", 0.6),
    ]


def _round(files: Files, number: int) -> dict[str, dict[str, Any]]:
    sides: dict[str, dict[str, Any]] = {}
    for side in ("trl", "trl-8", "update", "learn", "ahead"):
        events = events_of(files.cost(side, number))
        cost = Cost.of(events)
        sides[side] = {
            "update_us": cost.update_us,
            "update_cpu_us": cost.update_cpu_us,
            "update_mib": cost.update_mib,
            "step_s": cost.step_s,
            **{key: value for key, value in events[-1].items() if key.endswith("_mib")},
        }
    return sides


def _quality_claims(files: Files, seeds: int) -> list[Claim]:
    pairs = [(side, "trl") for side in OURS]
    pairs += [("default", "trl-12"), ("twice", "trl-twice"), ("twice", "trl-12-twice")]
    return [claim for ours, theirs in pairs for claim in _time_claim(files, ours, theirs, seeds)]


def _time_claim(files: Files, ours: str, theirs: str, seeds: int) -> list[Claim]:
    ratios = [
        _time_ratio(events_of(files.quality(ours, seed)), events_of(files.quality(theirs, seed)))
        for seed in range(1, seeds + 1)
        if is_done(files.quality(ours, seed)) and is_done(files.quality(theirs, seed))
    ]
    if not ratios:
        return []
    name = f"time to held-out pass@1 of {TARGET}, {OURS[ours]} of {TRL[theirs]}"
    limit = round(1 / 3, 3)
    return [Claim(f"{name}, {len(ratios)} seeds", round(median(ratios), 3), "ratio", "<=", limit)]


def _time_ratio(ours: Sequence[Event], theirs: Sequence[Event]) -> float:
    """Where TRL has not reached the target, what it used counts: less than it needs."""
    used_s = max(event.get("train_s", 0.0) for event in theirs)
    reached = reached_s(ours)
    return NEVER if reached is None else reached / (reached_s(theirs) or used_s)


def _curves(files: Files, seeds: int) -> dict[str, list[dict[str, Any]]]:
    curves: dict[str, list[dict[str, Any]]] = {}
    for side in (*TRL, *OURS):
        for seed in range(1, seeds + 1):
            events = events_of(files.quality(side, seed))
            if not is_done(files.quality(side, seed)):
                continue
            evaluated = [event for event in events if event["event"] == "evaluated"]
            curves.setdefault(side, []).append(
                {
                    "seed": seed,
                    "start_s": events[0]["seconds"],
                    "reached_s": reached_s(events),
                    "steps": [event["step"] for event in evaluated],
                    "train_s": [event["train_s"] for event in evaluated],
                    "pass_at_1": [event["pass_at_1"] for event in evaluated],
                }
            )
    return curves
