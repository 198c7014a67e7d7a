"""No answer that a client received in full may be missing from the log, whatever dies.

    python -m benchmarks.durability                          # the whole figures, eight minutes
    python -m benchmarks.durability --kills 2 --outage-s 5   # a look

The web process is `ttrl-server serve` in front of a stub engine, under HTTP load, whole answers and
streams on three routes: killed with `kill -9` again and again, every other time while its database
is away; with its database stopped; and with its disk full.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from benchmarks.durable_load import Heard, Kept, Load, compare
from benchmarks.durable_web import WebProcess, web_process
from benchmarks.outages import Store, filled, no_file_grows, postgres, small_disk, sqlite_store
from benchmarks.result import Claim, show_claims, write_result
from benchmarks.serving import serving

WARM_UP_S: Final = 5.0
KILL_AFTER_S: Final = (0.3, 2.0)
DISK_BYTES: Final = 48 * 2**20
SAMPLE_S: Final = 0.25
MEMORY_BYTES: Final = 64 * 2**20  # more than this much is not flat
DRAIN_S: Final = 300.0

Taken = Callable[[], AbstractContextManager[None]]


@dataclass(slots=True)
class Outcome:
    """What came of a scenario. Times are in seconds."""

    kept: Kept
    num_refused: int
    num_cut: int
    slowest_s: float
    refusals: dict[str, int]
    grown_bytes: int = 0
    recovery_s: float = 0.0
    states: list[str] = field(default_factory=list[str])

    @classmethod
    def of(cls, heard: Heard, kept: Kept, **more: Any) -> Outcome:
        """From what was heard and kept."""
        return cls(
            kept,
            num_refused=sum(heard.refused.values()),
            num_cut=heard.num_cut,
            slowest_s=round(heard.slowest_s, 3),
            refusals=dict(heard.refused.most_common(5)),
            **more,
        )


async def kills(web: WebProcess, store: Store, *, num: int, rate: float) -> Outcome:
    """Kill the process `num` times under load; every other time its database is away, and of these
    every other time still when it starts again.
    """
    dice, load = random.Random(0), Load(web.url, rate=rate)
    outages = list(store.outages.values())
    async with load.running() as heard:
        for number in range(num):
            with ExitStack() as away:
                await _heard_more(heard, web, 2)
                if number % 2:
                    away.enter_context(outages[number // 2 % len(outages)]())
                await asyncio.sleep(dice.uniform(*KILL_AFTER_S))
                web.kill()
                if number % 4 != 3:
                    away.close()
                web.start()
                if number % 4 == 3:
                    await asyncio.sleep(dice.uniform(2, 6))
            await web.until(status=200)
        began = perf_counter()
        await web.until(status=200, log="ok", within_s=DRAIN_S)
        recovery_s = perf_counter() - began
    kept = compare(heard, await web.rows())
    return Outcome.of(heard, kept, recovery_s=round(recovery_s, 2))


async def _heard_more(heard: Heard, web: WebProcess, num: int) -> None:
    """Wait until answers come."""
    before = len(heard.received)
    async with asyncio.timeout(180):
        while len(heard.received) < before + num:  # noqa: ASYNC110 (nobody announces it)
            await asyncio.sleep(0.01)


async def outage(web: WebProcess, taken: Taken, *, seconds: float, rate: float) -> Outcome:
    """Take the database away under load for so long."""
    load, states = Load(web.url, rate=rate), set[str]()
    async with load.running() as heard:
        await asyncio.sleep(min(WARM_UP_S, seconds))
        before = most = web.rss_bytes
        with taken():
            until = perf_counter() + seconds
            while perf_counter() < until:
                await asyncio.sleep(SAMPLE_S)
                most = max(most, web.rss_bytes)
                states.add(_state(await web.health()))
        began = perf_counter()
        await web.until(status=200, log="ok", within_s=DRAIN_S)
        recovery_s = perf_counter() - began
        most = max(most, web.rss_bytes)
    kept = compare(heard, await web.rows())
    return Outcome.of(
        heard,
        kept,
        grown_bytes=most - before,
        recovery_s=round(recovery_s, 2),
        states=sorted(states),
    )


def _state(health: tuple[int, dict[str, Any]]) -> str:
    status, body = health
    return f"{status} {body['database']} {body['log']['state']}" if body else str(status)


async def full_disk(web: WebProcess, taken: Taken, *, seconds: float, rate: float) -> Outcome:
    """Let the disk be full under load for so long."""
    load, states = Load(web.url, rate=rate), list[str]()
    async with load.running() as heard:
        await asyncio.sleep(min(WARM_UP_S, seconds))
        with taken():
            with suppress(RuntimeError):  # the states tell
                await web.until(status=503, log="full", within_s=seconds)
            until = perf_counter() + seconds
            while perf_counter() < until:
                await asyncio.sleep(SAMPLE_S)
                states.append(_state(await web.health()))
        began = perf_counter()
        await web.until(status=200, log="ok", within_s=DRAIN_S)
        await _heard_more(heard, web, 2)
        recovery_s = perf_counter() - began
    kept = compare(heard, await web.rows())
    return Outcome.of(heard, kept, recovery_s=round(recovery_s, 2), states=sorted(set(states)))


def _claims(name: str, outcome: Outcome) -> list[Claim]:
    kept = outcome.kept
    claims = [
        Claim(f"{name}: received answers missing from the log", kept.num_missing, "", "==", 0),
        Claim(f"{name}: answers twice in the log", kept.num_twice, "", "==", 0),
        Claim(f"{name}: rows out of order", kept.num_out_of_order, "", "==", 0),
    ]
    if "stopped" in name:
        failed = outcome.num_refused + outcome.num_cut
        grown = outcome.grown_bytes / 2**20
        claims.append(Claim(f"{name}: requests that failed", failed, "", "==", 0))
        claims.append(
            Claim(f"{name}: memory grown by", round(grown, 1), "MiB", "<=", MEMORY_BYTES / 2**20)
        )
    if "disk" in name:
        told = all(one.startswith("503") and one.endswith("full") for one in outcome.states)
        claims.append(Claim(f"{name}: said by /readyz, all the time", int(told), "", "==", 1))
    return claims


async def _run(stack: ExitStack, store: Store, name: str, work: Any, root: Path) -> Outcome:
    engine = stack.enter_context(serving("benchmarks.stub_engine"))
    async with web_process(root, engine, store) as web:
        outcome: Outcome = await work(web)
    print(f"{name}: {outcome}", flush=True)
    return outcome


def _measure(options: argparse.Namespace, root: Path) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}

    def run(name: str, store: Store, work: Any, directory: Path) -> None:
        if options.only not in name:
            return
        with ExitStack() as stack:
            found[name] = asyncio.run(_run(stack, store, name, work, directory))

    def run_all(make: Callable[[str], Store]) -> None:
        store = make("kills")
        name = f"{options.kills} kills, {store.kind}"
        work = partial(kills, store=store, num=options.kills, rate=options.rate)
        run(name, store, work, root / name)
        for kind in store.outages:
            one = make(kind)
            name = f"{one.kind} stopped ({kind}) for {options.outage_s:g} s"
            work = partial(
                outage, taken=one.outages[kind], seconds=options.outage_s, rate=options.rate
            )
            run(name, one, work, root / name)

    run_all(lambda name: sqlite_store(root / f"{name}.db"))
    with postgres() as server:
        run_all(lambda _: server.store())
    if options.only in "disk full":
        found |= _measure_full_disk(options, root)
    return found


def _measure_full_disk(options: argparse.Namespace, root: Path) -> dict[str, Outcome]:
    with small_disk(DISK_BYTES) as disk, ExitStack() as stack:
        where = (disk or root) / "full"
        name = "disk full" if disk else "disk full (by a limit of the process)"

        def taken(web: WebProcess) -> AbstractContextManager[None]:
            return filled(disk) if disk else no_file_grows(web.pid)

        async def work(web: WebProcess) -> Outcome:
            return await full_disk(
                web, lambda: taken(web), seconds=options.full_s, rate=options.rate
            )

        store = sqlite_store(where / "ttrl.db")
        return {name: asyncio.run(_run(stack, store, name, work, where))}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durability")
    parser.add_argument("--kills", type=int, default=20, help="of each database's web process")
    parser.add_argument("--outage-s", type=float, default=60.0)
    parser.add_argument("--full-s", type=float, default=20.0, help="how long the disk is full")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    parser.add_argument("--dry", action="store_true", help="write no result")
    return parser.parse_args()


def main() -> None:
    """Measure, say it, and write the result."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="ttrl-durability-") as directory:
        found = _measure(options, Path(directory))
    claims = [claim for name, outcome in found.items() for claim in _claims(name, outcome)]
    show_claims(claims)
    if not options.dry:
        data = {name: asdict(outcome) for name, outcome in found.items()}
        print(write_result("durability", claims, data))


if __name__ == "__main__":
    main()
