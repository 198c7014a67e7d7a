"""Swaps and rollbacks under streaming load, and more tenants than LoRA slots, on a real engine.

Each version answers one question with a text of its own, so every token says which version it came
from. Phases with and without swaps alternate in one run, under the same load.

    python -m benchmarks.swaps [--swaps 500] [--rounds 5] [--crowd-s 60]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from ttrl_client.types import Swap

from benchmarks.result import Claim, show_claims, write_result
from benchmarks.swap_load import Crowd, Marked, Move, failed, leaked, mark_tenants, wrong
from tests.e2e.live import LiveServer

NUM_SWAPS = 500
USERS_PER_TENANT = 2
NUM_VERSIONS = 4
SWAP_EVERY_S = 0.2
KEEP_S = 2.0
SLOTS = 4  # LoRA slots of the crowded engine; two of them are kept for swaps and cycles
MEMORY = 8  # adapters in its host memory
CROWD_SWAPS_EVERY_S = 1.0
FIRST = float("-inf")


@dataclass(slots=True)
class Swapper:
    """Moves tenants' pointers in turn, two promotions and then a rollback each."""

    live: LiveServer
    tenants: Sequence[Marked]
    moves: list[Move] = field(default_factory=list[Move])
    swaps: list[Swap] = field(default_factory=list[Swap])
    rollback_ms: list[float] = field(default_factory=list[float])
    promote_ms: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        """Everybody begins at version 0."""
        self.moves += [Move(t.name, f"{t.name}--v0", FIRST, FIRST) for t in self.tenants]

    async def swap(self) -> None:
        """One move."""
        at = len(self.swaps)
        tenant, turn = self.tenants[at % len(self.tenants)], at // len(self.tenants)
        begun = time.monotonic()
        moved = await asyncio.to_thread(self._move, tenant, turn)
        ended = time.monotonic()
        (self.rollback_ms if turn % 3 == 2 else self.promote_ms).append((ended - begun) * 1e3)
        self.swaps.append(moved)
        self.moves.append(Move(tenant.name, f"{tenant.name}--v{moved.to_version}", begun, ended))

    def _move(self, tenant: Marked, turn: int) -> Swap:
        if turn % 3 == 2:
            return self.live.admin.rollback(tenant.name)
        live = self.live.admin.read_tenant(tenant.name).live_version
        others = [n for n in range(1, len(tenant.texts)) if n != live]
        number = others[turn % len(others)] if others else 0
        return self.live.admin.promote(tenant.name, number)


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of time with or without swaps; monotonic seconds."""

    has_swaps: bool
    begun: float
    ended: float


async def under_fire(folder: Path, *, num_swaps: int, rounds: int) -> tuple[list[Claim], Any]:
    """Swaps under streaming load: nothing fails, nothing is mixed up, nothing stays, and streams go
    on nearly as before.
    """
    live = LiveServer(folder / "fire", worker=False, engine_keep_s=KEEP_S)
    try:
        await asyncio.to_thread(live.start)
        tenants = await asyncio.to_thread(
            mark_tenants, live, folder / "fire-markers", ["a", "b"], num_versions=NUM_VERSIONS
        )
        swapper, crowd = Swapper(live, tenants), Crowd(live.base_url)
        async with crowd.asking(tenants * USERS_PER_TENANT):
            await asyncio.sleep(2)
            phases = await _alternate(swapper, num_swaps=num_swaps, rounds=rounds)
        left = await leaked(live, tenants, patience_s=10 * KEEP_S)
    finally:
        await asyncio.to_thread(live.stop)
    return _fire_report(swapper, crowd, phases, left)


def _fire_report(
    swapper: Swapper, crowd: Crowd, phases: Sequence[Phase], left: set[str]
) -> tuple[list[Claim], Any]:
    gaps = {
        has: _gaps_ms(crowd, [p for p in phases if p.has_swaps is has]) for has in (False, True)
    }
    p99 = {has: _p99(values) for has, values in gaps.items()}
    flips = [swap.flip_ms for swap in swapper.swaps]
    faults, mixed = failed(crowd.streams), wrong(crowd.streams, swapper.tenants, swapper.moves)
    claims = [
        Claim("swaps and rollbacks", len(swapper.swaps), "", ">=", NUM_SWAPS),
        *_zeros("under swaps", faults, mixed, left),
        Claim("inter-token p99 with swaps over without", p99[True] / p99[False], "x", "<=", 2.0),
        Claim("longest flip", max(flips), "ms", "<=", 50.0),
        Claim("longest rollback, as its caller sees it", max(swapper.rollback_ms), "ms", "<=", 1e3),
    ]
    data = {
        "num_streams": len(crowd.streams),
        "num_users": len(swapper.tenants) * USERS_PER_TENANT,
        "inter_token_ms": {"calm": _summary(gaps[False]), "swaps": _summary(gaps[True])},
        "rounds": _by_round(crowd, phases),
        "flip_ms": _summary(flips),
        "load_ms": _summary([swap.load_ms for swap in swapper.swaps]),
        "promote_ms": _summary(swapper.promote_ms),
        "rollback_ms": _summary(swapper.rollback_ms),
        "troubles": [*faults[:10], *mixed[:10], *sorted(left)],
    }
    return claims, data


async def _alternate(swapper: Swapper, *, num_swaps: int, rounds: int) -> list[Phase]:
    """Phases of equal length, in turns first."""
    phases: list[Phase] = []
    per_round = -(-num_swaps // rounds)
    for number in range(rounds):
        lasted = per_round * SWAP_EVERY_S
        for has_swaps in (True, False) if number % 2 else (False, True):
            begun = time.monotonic()
            if has_swaps:
                await _swap(swapper, per_round)
                lasted = time.monotonic() - begun
            else:
                await asyncio.sleep(lasted)
            phases.append(Phase(has_swaps, begun, time.monotonic()))
    return phases


async def _swap(swapper: Swapper, number: int) -> None:
    due = time.monotonic()
    for _ in range(number):
        due += SWAP_EVERY_S
        await swapper.swap()
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def crowded(folder: Path, *, seconds: float) -> tuple[list[Claim], Any]:
    """Three times more tenants than LoRA slots, more than fit into host memory too, a hot one among
    them, and a swap a second.
    """
    num_tenants = 3 * SLOTS
    live = LiveServer(
        folder / "crowd",
        worker=False,
        engine_keep_s=KEEP_S,
        engine_max_loras=SLOTS,
        engine_max_cpu_loras=MEMORY,
    )
    try:
        await asyncio.to_thread(live.start)
        names = [f"tenant-{number}" for number in range(num_tenants)]
        tenants = await asyncio.to_thread(
            mark_tenants, live, folder / "crowd-markers", names, num_versions=1
        )
        swapper, crowd = Swapper(live, tenants), Crowd(live.base_url)
        for _ in tenants:
            await swapper.swap()
        async with crowd.asking([*tenants, tenants[0], tenants[0]]):
            over = time.monotonic() + seconds
            while time.monotonic() < over:
                await asyncio.sleep(CROWD_SWAPS_EVERY_S)
                await _back_and_forth(swapper)
        left = await leaked(live, tenants, patience_s=10 * KEEP_S)
    finally:
        await asyncio.to_thread(live.stop)
    return _crowd_report(swapper, crowd, left)


def _crowd_report(swapper: Swapper, crowd: Crowd, left: set[str]) -> tuple[list[Claim], Any]:
    names = [tenant.name for tenant in swapper.tenants]
    waits: defaultdict[str, list[float]] = defaultdict(list)
    for stream in crowd.streams:
        if stream.is_whole:
            waits[stream.tenant].append(stream.wait_s * 1e3)
    medians = {name: median(waits[name]) if waits[name] else float("inf") for name in names}
    faults, mixed = failed(crowd.streams), wrong(crowd.streams, swapper.tenants, swapper.moves)
    claims = [
        Claim("tenants over LoRA slots", len(names) / SLOTS, "x", ">=", 3.0),
        *_zeros("with more tenants than slots", faults, mixed, left),
        Claim(
            "longest median wait of a tenant over the median of all",
            max(medians.values()) / median(medians.values()),
            "x",
            "<=",
            5.0,
        ),
    ]
    data = {
        "num_tenants": len(names),
        "slots": SLOTS,
        "host_memory": MEMORY,
        "num_swaps": len(swapper.swaps),
        "num_streams": len(crowd.streams),
        "median_wait_ms": {name: round(value, 1) for name, value in medians.items()},
        "longest_wait_ms": {name: round(max(found), 1) for name, found in waits.items()},
        "troubles": [*faults[:10], *mixed[:10], *sorted(left)],
    }
    return claims, data


async def _back_and_forth(swapper: Swapper) -> None:
    """To the base model for a moment, and back: all tenants keep adapters of their own."""
    number = len(swapper.swaps) // 2
    tenant = swapper.tenants[number % len(swapper.tenants)]
    for to_version in (0, 1):
        begun = time.monotonic()
        admin = swapper.live.admin
        swap = await asyncio.to_thread(admin.promote, tenant.name, to_version)
        label = f"{tenant.name}--v{to_version}"
        swapper.moves.append(Move(tenant.name, label, begun, time.monotonic()))
        swapper.swaps.append(swap)


def _zeros(when: str, faults: Sequence[str], mixed: Sequence[str], left: set[str]) -> list[Claim]:
    return [
        Claim(f"failed requests {when}", len(faults), "", "==", 0),
        Claim(f"answers with tokens of another version {when}", len(mixed), "", "==", 0),
        Claim(f"adapters left in the engine {when}", len(left), "", "==", 0),
    ]


def _gaps_ms(crowd: Crowd, phases: Sequence[Phase]) -> list[float]:
    return [
        gap * 1e3
        for stream in crowd.streams
        for at, gap in stream.gaps()
        if any(phase.begun <= at - gap and at <= phase.ended for phase in phases)
    ]


def _by_round(crowd: Crowd, phases: Sequence[Phase]) -> list[dict[str, Any]]:
    return [
        {
            "swaps": phase.has_swaps,
            "seconds": round(phase.ended - phase.begun, 1),
            "inter_token_ms": _summary(_gaps_ms(crowd, [phase])),
        }
        for phase in phases
    ]


def _p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[98] if len(values) > 1 else float("inf")


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {
        "count": len(values),
        "p50": round(median(values), 2) if values else float("inf"),
        "p99": round(_p99(values), 2),
        "max": round(max(values, default=float("inf")), 2),
    }


async def main() -> None:
    """Run both parts and write `benchmarks/results/swaps.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--swaps", type=int, default=NUM_SWAPS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crowd-s", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("fire", "crowd"):
            (folder / part).mkdir()
        fire, fire_data = await under_fire(folder, num_swaps=options.swaps, rounds=options.rounds)
        crowd, crowd_data = await crowded(folder, seconds=options.crowd_s)
    claims = [*fire, *crowd]
    path = write_result("swaps", claims, {"under_fire": fire_data, "crowded": crowd_data})
    show_claims(claims)
    print(path)


if __name__ == "__main__":
    asyncio.run(main())
