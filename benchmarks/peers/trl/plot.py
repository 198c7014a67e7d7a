"""The learner's result as a picture: held-out pass@1 over the seconds of learning.

python -m benchmarks.peers.trl.plot --result benchmarks/results/learner.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

SIDES = {
    "trl": ("TRL GRPOTrainer, majority", "tab:gray"),
    "trl-twice": ("the same, two updates of each batch", "black"),
    "trl-12": ("TRL GRPOTrainer, majority of 12", "tab:brown"),
    "trl-12-twice": ("the same, two updates of each batch", "tab:purple"),
    "majority": ("ours, majority", "tab:orange"),
    "default": ("ours, default (harmony over views)", "tab:blue"),
    "ahead": ("ours, default with a batch ahead", "tab:green"),
    "twice": ("the same, two updates of each batch", "tab:red"),
}


def main() -> None:
    """Draw it next to the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.trl.plot")
    parser.add_argument("--result", type=Path, required=True)
    path = parser.parse_args().result
    curves = json.loads(path.read_text())["data"]["quality"]
    mpl.rcParams["svg.hashsalt"] = "learner"  # the same picture for the same numbers
    figure, axes = plt.subplots(figsize=(7, 4))
    for side, (label, color) in SIDES.items():
        for number, curve in enumerate(curves.get(side, [])):
            axes.plot(
                curve["train_s"],
                curve["pass_at_1"],
                color=color,
                marker=".",
                alpha=0.8,
                label=label if number == 0 else None,
            )
    axes.axhline(0.75, color="black", linewidth=0.5, linestyle="--")
    axes.set_xlabel("seconds of sampling and learning, evaluations and start-up not counted")
    axes.set_ylabel("held-out pass@1")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    figure.tight_layout()
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
