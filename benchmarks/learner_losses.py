"""Our loss on the tensors for which `benchmarks.peers.trl.losses` has written down TRL's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.batch import LearnerConfig


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two losses of one case are apart."""

    case: str
    loss: float
    gradient: float  # largest of all tokens


def differences(path: Path) -> list[Difference]:
    """One for each case of the file."""
    return [_difference(case) for case in json.loads(path.read_text(encoding="utf-8"))["cases"]]


def _difference(case: dict[str, Any]) -> Difference:
    import torch

    from adapters.training.loss import k3, policy_losses

    flat = {
        name: torch.tensor([value for row in rows for value in row])
        for name, rows in case["tensors"].items()
    }
    config, settings = _config(case["settings"]), case["settings"]
    logprobs = flat["logprobs"].requires_grad_()
    old = flat["old"] if settings.get("old", True) else None
    losses = policy_losses(logprobs, old, flat["engine"], flat["advantages"], config)
    loss = (losses.policy + config.kl_coef * k3(logprobs, flat["base"])).mean()
    loss.backward()
    theirs = torch.tensor([value for row in case["gradients"] for value in row])
    assert logprobs.grad is not None
    return Difference(
        case=case["name"],
        loss=abs(loss.item() - case["loss"]),
        gradient=(logprobs.grad - theirs).abs().max().item(),
    )


def _config(settings: dict[str, Any]) -> LearnerConfig:
    return LearnerConfig(
        clip_low=0.2,
        clip_high=settings.get("clip_high", 0.28),
        dual_clip=settings.get("dual_clip"),
        tis_cap=settings.get("tis_cap"),
        kl_coef=settings.get("kl_coef", 0.0),
    )
