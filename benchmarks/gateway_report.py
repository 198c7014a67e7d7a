"""From the rounds of the gateway's benchmark to its claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from benchmarks.result import Claim, write_result

Seen = Mapping[str, Any]  # of one side in one round, see `benchmarks.load.Seen`
Rounds = Sequence[Mapping[str, Seen]]
Parts = Mapping[str, Mapping[str, Any]]

WARM_UP = 0.2  # of the requests of the part `memory`
NOTES = (
    "Load, servers and stub engine share the machine's cores; each web process has one thread that "
    "works, and one that waits for the disk.",
    "The log is SQLite behind a journal: an answer goes out when it is in a file on the disk; rows "
    "follow, with synchronous=FULL, while other requests are served.",
    "A virtual machine's cores sleep between two requests at this rate, and waking them is a good "
    "part of what each side adds; `awake` is the same while no core sleeps (benchmarks/awake.py).",
    "The difference of two percentiles is not the percentile of differences, but requests of two "
    "sides cannot be paired.",
)


def at(seen: Seen, quantile: float, which: str = "whole_ms") -> float:
    """Milliseconds at a quantile."""
    return seen[which][list(seen["quantiles"]).index(quantile)]


def ratio(rounds: Rounds, side: str, to: str) -> float:
    """Of what gets through on one side to another."""
    return round(median(one[side]["per_s"] / one[to]["per_s"] for one in rounds), 3)


def added(rounds: Rounds, side: str, quantile: float, which: str = "whole_ms") -> float:
    """Milliseconds that a side adds to the engine's own."""
    each = (at(one[side], quantile, which) - at(one["direct"], quantile, which) for one in rounds)
    return round(median(each), 3)


def added_to_limit(rounds: Rounds) -> float:
    """What the gateway adds at the median, of what a bare relay adds that syncs each answer to a
    file: no gateway in Python whose answers are stored before they are sent can add less.
    """
    return round(added(rounds, "gateway", 0.5) / added(rounds, "relay_journal", 0.5), 3)


def growth(samples: Sequence[tuple[int, float]]) -> float:
    """MiB that 100,000 requests add, by the line through what is measured after the warm-up."""
    until = WARM_UP * samples[-1][0]
    late = [sample for sample in samples if sample[0] >= until]
    if len(late) < 2:
        return 0.0
    slope = linear_regression([n for n, _ in late], [mib for _, mib in late]).slope
    return round(slope * 100_000, 2)


def claims(parts: Parts) -> list[Claim]:
    """What is claimed of the parts that are there."""
    made: list[Claim] = []
    makers: dict[str, Callable[[Mapping[str, Any]], list[Claim]]] = {
        "latency": _latency,
        "awake": _awake,
        "throughput": _throughput,
        "stream": _stream,
        "memory": _memory,
    }
    for name, make in makers.items():
        if name in parts:
            made += make(parts[name])
    return made


def _latency(part: Mapping[str, Any]) -> list[Claim]:
    rounds: Rounds = part["rounds"]
    return [
        Claim("added at 100 requests/s, p50", added(rounds, "gateway", 0.5), "ms", "<=", 1.5),
        Claim("added at 100 requests/s, p99", added(rounds, "gateway", 0.99), "ms", "<=", 6),
        Claim("added, p50, of a syncing relay's", added_to_limit(rounds), "ratio", "<=", 1.25),
    ]


def _awake(part: Mapping[str, Any]) -> list[Claim]:
    rounds: Rounds = part["rounds"]
    name = "added at 100 requests/s, cores awake"
    return [
        Claim(f"{name}, p50", added(rounds, "gateway", 0.5), "ms", "<=", 1.5),
        Claim(f"{name}, p99", added(rounds, "gateway", 0.99), "ms", "<=", 6),
    ]


def _throughput(part: Mapping[str, Any]) -> list[Claim]:
    rounds: Rounds = part["rounds"]
    relay, litellm = ratio(rounds, "gateway", "relay"), ratio(rounds, "gateway", "litellm")
    stub = ratio(rounds, "direct", "relay")
    return [
        Claim("requests/s with the log, of the bare relay's", relay, "ratio", ">=", 0.5),
        Claim("requests/s with the log, of LiteLLM's", litellm, "ratio", ">=", 25),
        Claim("requests/s of stub and load alone, of the bare relay's", stub, "ratio", ">=", 3),
    ]


def _stream(part: Mapping[str, Any]) -> list[Claim]:
    at_once = ratio(part["at_once"], "gateway", "relay")
    paced = ratio(part["paced"], "gateway", "relay")
    first = added(part["first_event"], "gateway", 0.5, "first_ms")
    return [
        Claim("streams/s of events at once, of the bare relay's", at_once, "ratio", ">=", 0.7),
        Claim("streams/s of events 5 ms apart, of the bare relay's", paced, "ratio", ">=", 0.7),
        Claim("added to the first event, p50", first, "ms", "<=", 1.5),
    ]


def _memory(part: Mapping[str, Any]) -> list[Claim]:
    mib = growth(part["samples"])
    return [Claim("memory that 100,000 requests add after the warm-up", mib, "MiB", "<=", 5)]


def report(parts: Parts) -> Path:
    """Write the result."""
    data: dict[str, Any] = {"commits": {name: part["commit"] for name, part in parts.items()}}
    for name, key in (
        ("latency", "rounds"),
        ("awake", "rounds"),
        ("throughput", "rounds"),
        ("stream", "at_once"),
        ("stream", "paced"),
        ("stream", "first_event"),
    ):
        if name in parts:
            label = name if key == "rounds" else f"{name}_{key}"
            data[label] = _sides(parts[name][key])
    if "throughput" in parts:
        data["rss_mib"] = parts["throughput"]["rss_mib"]
    if "memory" in parts:
        data["memory"] = parts["memory"]["samples"]
    return write_result("gateway", claims(parts), data | {"notes": NOTES})


def _sides(rounds: Rounds) -> dict[str, dict[str, Any]]:
    """Each side's medians, and what gets through in each round."""
    found: dict[str, dict[str, Any]] = {}
    for side in rounds[0]:
        ours = [one[side] for one in rounds]
        found[side] = {
            "per_s": round(median(one["per_s"] for one in ours), 1),
            "per_s_of_each_round": [round(one["per_s"], 1) for one in ours],
            "server_us": round(median(one["server_us"] for one in ours), 1),
            "load_busy": round(max(one["busy"] for one in ours), 3),
            "quantiles": ours[0]["quantiles"],
            "whole_ms": _middle(ours, "whole_ms"),
            "first_ms": _middle(ours, "first_ms"),
        }
    return found


def _middle(ours: Sequence[Seen], which: str) -> list[float]:
    return [round(median(column), 3) for column in zip(*(one[which] for one in ours), strict=True)]
