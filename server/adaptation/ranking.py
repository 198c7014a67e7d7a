"""Which prompts come first in a cycle, where the tenant does not just want the newest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from adapters.impact import learning_impact, signal
from server.adaptation.prompt import Prompt

Order = Literal["fresh", "variance", "impact"]
History = Mapping[str, Sequence[tuple[str | None, float]]]
"""By fingerprint: (label, majority ratio) of earlier visits, oldest first."""


def rank(prompts: Sequence[Prompt], history: History, order: Order) -> list[Prompt]:
    """The prompts in that order; of equals, and with `fresh` all, as they came: newest first.

    Prompts about which nothing is known yet come first, or they would never become known: those
    without a visit, then for `impact` those with too few for a score.
    """
    if order == "fresh":
        return list(prompts)
    known = {prompt.fingerprint for prompt in prompts}
    curves = {
        fingerprint: [0.0 if label is None else ratio for label, ratio in visits]
        for fingerprint, visits in history.items()
        if visits and fingerprint in known
    }
    if order == "variance":
        scores = {fingerprint: signal(curve) for fingerprint, curve in curves.items()}
    else:
        scores = learning_impact(curves)

    def place(prompt: Prompt) -> tuple[int, float]:
        if prompt.fingerprint not in curves:
            return 0, 0.0
        score = scores.get(prompt.fingerprint)
        return (1, 0.0) if score is None else (2, -score)

    return sorted(prompts, key=place)
