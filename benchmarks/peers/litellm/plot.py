"""The gateway's result as a picture: latency at 100 requests/s, what gets through, memory.

python -m benchmarks.peers.litellm.plot --result benchmarks/results/gateway.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

SIDES = {
    "direct": ("stub engine alone", "tab:gray"),
    "relay": ("bare FastAPI + aiohttp relay", "tab:orange"),
    "relay_journal": ("relay that syncs answers to a file", "tab:brown"),
    "litellm": ("LiteLLM proxy", "tab:red"),
    "gateway": ("ours", "tab:blue"),
    "gateway_unlogged": ("ours, store: false", "tab:cyan"),
    "gateway_2": ("ours, 2 web processes", "tab:purple"),
    "gateway_2_unlogged": ("ours, 2, store: false", "tab:pink"),
}


def _latency(axes: Any, sides: dict[str, Any]) -> None:
    for name, side in sides.items():
        label, color = SIDES[name]
        axes.plot(side["whole_ms"], side["quantiles"], color=color, label=label, marker=".")
    axes.set_xscale("log")
    axes.set_xlabel("ms to the last byte, 100 requests/s")
    axes.set_ylabel("share of the requests")


def _bars(axes: Any, sides: dict[str, Any], unit: str) -> None:
    names = [name for name in SIDES if name in sides]
    axes.barh(
        [SIDES[name][0] for name in names],
        [sides[name]["per_s"] for name in names],
        color=[SIDES[name][1] for name in names],
    )
    for row, name in enumerate(names):
        axes.text(sides[name]["per_s"], row, f" {sides[name]['per_s']:,.0f}", va="center")
    axes.set_xscale("log")
    axes.set_xlim(left=10, right=4 * max(side["per_s"] for side in sides.values()))
    axes.invert_yaxis()
    axes.set_xlabel(unit)


def _memory(axes: Any, samples: list[tuple[int, float]]) -> None:
    axes.plot(*zip(*samples, strict=True), color=SIDES["gateway"][1], marker=".")
    axes.set_ylim(0, 1.3 * max(mib for _, mib in samples))
    axes.set_xlabel("requests answered")
    axes.set_ylabel("MiB resident, web process")


def main() -> None:
    """Draw it next to the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.litellm.plot")
    parser.add_argument("--result", type=Path, required=True)
    path: Path = parser.parse_args().result
    result = json.loads(path.read_text())
    data, machine = result["data"], result["machine"]
    mpl.rcParams["svg.hashsalt"] = "gateway"  # the same picture for the same numbers
    figure, axes = plt.subplots(2, 2, figsize=(12, 8))
    if "latency" in data:
        _latency(axes[0, 0], data["latency"])
        axes[0, 0].legend()
    if "throughput" in data:
        _bars(axes[0, 1], data["throughput"], "requests/s, 64 clients")
    if "stream_paced" in data:
        _bars(axes[1, 0], data["stream_paced"], "streams/s, 32 events 5 ms apart, 128 clients")
    if "memory" in data:
        _memory(axes[1, 1], data["memory"])
    for one in axes.flat:
        one.grid(alpha=0.3)
    title = f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}"
    figure.suptitle(f"{title}, commit {result['commit']}")
    figure.tight_layout()
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
