"""What the gateway costs in front of an engine that costs nothing: latency, requests and streams a
second, memory; against the engine alone, a bare relay, and the LiteLLM proxy.

    python -m benchmarks.gateway [--only PART] [--short] [--report]

The gateway checks keys and fields and logs durably, except where a side is called `unlogged`. Sides
take turns within a round, a ratio or difference is that of one round, and what is claimed is the
median over rounds. The load comes from a process of its own. The parts:

- latency: requests come by the clock, 100 a second.
- awake: the same while no core goes to sleep between two requests (benchmarks/awake.py).
- throughput: 64 clients ask again as soon as they are answered.
- stream: streams a second, of events that come at once and of events 5 ms apart; and the time to
  the first event, at 20 streams a second.
- memory: what the web process holds during 100,000 requests, a fifth of them streams.

Each part is stored under var/bench/gateway when it is done. Without `--only` what is stored is not
run again, so the benchmark can be stopped and gone on with; with it a part is run anew. `--short`
is to see that it works: its figures are stored nowhere.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.awake import awake
from benchmarks.gateway_report import claims, report
from benchmarks.gateway_sides import FOLDER, Side, sides
from benchmarks.load import Seen
from benchmarks.result import ROOT, commit, show_claims

DRAWING = ROOT / "var" / "envs" / "litellm" / "bin" / "python"
RATE = 100.0  # requests a second
STREAM_RATE = 20.0
CLIENTS = 64
FEW_CLIENTS = 16  # of LiteLLM, which they keep as busy, and which answers 64 only after seconds
PAUSE_MS = 5  # between the events of a stream
REQUESTS = 100_000
GATEWAYS = ("gateway", "gateway_unlogged", "gateway_2", "gateway_2_unlogged")

Rounds = list[dict[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. Times in seconds."""

    rounds: int = 5
    seconds: float = 6.0
    warm_up_s: float = 1.0
    requests: int = REQUESTS


SHORT = Effort(rounds=1, seconds=2.0, warm_up_s=0.5, requests=2_000)


def by_turns(
    ways: Sequence[Side], measure: Callable[[Side, int], Seen], rounds: int, *, what: str
) -> Rounds:
    """Measure every side in every round, in another order each time."""
    found: Rounds = []
    for number in range(rounds):
        turn = number % len(ways)
        seen: dict[str, dict[str, Any]] = {}
        for side in (*ways[turn:], *ways[:turn]):
            one = measure(side, number)
            if one.failed or not one.per_s:
                raise RuntimeError(f"{side.name}: {one.failed} of {one.sent} requests failed")
            seen[side.name] = asdict(one)
        found.append(seen)
        said = ", ".join(f"{side.name} {seen[side.name]['per_s']:.0f}" for side in ways)
        print(f"{what} {number + 1}/{rounds}, a second: {said}", flush=True)
    return found


def latency(effort: Effort) -> dict[str, Any]:
    """Requests by the clock: the same times of arrival for every side of a round."""
    names = ("direct", "relay", "relay_journal", "gateway", "gateway_unlogged")
    with sides(*names) as ways:

        def measure(side: Side, number: int) -> Seen:
            return side.load(side.whole(), **_open(effort, RATE, number))

        return {"rounds": by_turns(list(ways.values()), measure, effort.rounds, what="latency")}


def latency_awake(effort: Effort) -> dict[str, Any]:
    """As `latency`, without what sleeping cores cost every side."""
    with awake():
        return latency(effort)


def throughput(effort: Effort) -> dict[str, Any]:
    """As many requests as get through."""
    with sides("direct", "relay", "litellm", *GATEWAYS) as ways:

        def measure(side: Side, _number: int) -> Seen:
            clients = FEW_CLIENTS if side.name == "litellm" else CLIENTS
            return side.load(side.whole(), **_closed(effort, clients=clients))

        for side in ways.values():
            side.load(side.whole(), clients=8, seconds=effort.warm_up_s)  # first ones are slow
        rounds = by_turns(list(ways.values()), measure, effort.rounds, what="requests")
        return {"rounds": rounds, "rss_mib": {n: round(s.rss_mib, 1) for n, s in ways.items()}}


def stream(effort: Effort) -> dict[str, Any]:
    """As many streams as get through, and the time to the first event of one."""
    with sides("direct", "relay", "gateway", "gateway_unlogged") as ways:
        every = list(ways.values())

        def at_once(side: Side, _number: int) -> Seen:
            return side.load(side.stream(), **_closed(effort))

        def paced(side: Side, _number: int) -> Seen:
            body = side.stream(pause_ms=PAUSE_MS)
            return side.load(body, **_closed(effort, clients=2 * CLIENTS))

        def first_event(side: Side, number: int) -> Seen:
            body = side.stream(pause_ms=PAUSE_MS)
            return side.load(body, **_open(effort, STREAM_RATE, number))

        few = max(1, effort.rounds - 2)
        return {
            "at_once": by_turns(every, at_once, few, what="streams at once"),
            "paced": by_turns(every, paced, few, what="streams of events 5 ms apart"),
            "first_event": by_turns(every, first_event, effort.rounds, what="first events"),
        }


def memory(effort: Effort) -> dict[str, Any]:
    """What the web process holds after so many requests, every few seconds."""
    samples: list[tuple[int, float]] = []
    with sides("gateway") as ways:
        side, answered = ways["gateway"], 0
        bodies = [*[side.whole()] * 4, side.stream()]
        while answered < effort.requests:
            seen = side.load(*bodies, clients=CLIENTS, seconds=3.0, warm_up_s=0.0)
            if seen.failed or not seen.answered:
                raise RuntimeError(f"{seen.failed} requests failed, {seen.answered} did not")
            answered += seen.answered
            samples.append((answered, round(side.rss_mib, 2)))
            print(f"memory: {samples[-1][1]} MiB after {answered} requests", flush=True)
    return {"samples": samples}


def _open(effort: Effort, rate: float, number: int) -> dict[str, Any]:
    how = {"rate": rate, "clients": 8, "seed": number}
    return how | {"seconds": effort.seconds, "warm_up_s": effort.warm_up_s}


def _closed(effort: Effort, *, clients: int = CLIENTS) -> dict[str, Any]:
    return {"clients": clients, "seconds": effort.seconds, "warm_up_s": effort.warm_up_s}


PARTS: dict[str, Callable[[Effort], dict[str, Any]]] = {
    "latency": latency,
    "awake": latency_awake,
    "throughput": throughput,
    "stream": stream,
    "memory": memory,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway")
    parser.add_argument("--only", choices=PARTS, help="one part, whether or not it is stored")
    parser.add_argument("--short", action="store_true", help="only see that it works")
    parser.add_argument("--report", action="store_true", help="run nothing")
    return parser.parse_args()


def main() -> None:
    """Run what is missing; write the result, and say it."""
    options = _options()
    FOLDER.mkdir(parents=True, exist_ok=True)
    stored = {name: FOLDER / f"{name}.json" for name in PARTS}
    effort = SHORT if options.short else Effort()
    short: dict[str, Any] = {}
    for name, measure in PARTS.items():
        wanted = options.only == name if options.only else not stored[name].exists()
        if options.report or not (wanted or (options.short and not options.only)):
            continue
        data = {"commit": commit()} | measure(effort)
        if options.short:
            short[name] = data
        else:
            stored[name].write_text(json.dumps(data), encoding="utf-8")
    there = {name: json.loads(path.read_text()) for name, path in stored.items() if path.exists()}
    parts = short if options.short else there
    show_claims(claims(parts))
    if parts and not options.short:
        path = report(parts)
        draw = [str(DRAWING), "-m", "benchmarks.peers.litellm.plot", "--result", str(path)]
        subprocess.run(draw, check=True, cwd=ROOT)
        print(path)


if __name__ == "__main__":
    main()
