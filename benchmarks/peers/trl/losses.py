"""What TRL's GRPOTrainer makes of given log-probabilities: the loss, and its gradient per token.

Runs in TRL's own environment; the model in the trainer is never called:

    python -m benchmarks.peers.trl.losses --model demo/model --out FILE
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

SAMPLES, LONGEST = 6, 8
LENGTHS = (8, 3, 5, 8, 1, 6)
FULL = (LONGEST,) * SAMPLES

CASES: dict[str, dict[str, Any]] = {
    "one update": {"old": False},
    "several updates": {},
    "symmetric clip": {"clip_high": 0.2},
    "dual clip": {"dual_clip": 1.5},
    "penalty to the base": {"kl_coef": 0.3},
    "weight against the engine": {"tis_cap": 1.2},
    "one update, weight against the engine": {"old": False, "tis_cap": 1.2, "close": True},
    "everything": {"dual_clip": 3.0, "kl_coef": 0.05, "tis_cap": 2.0},
    "grpo, equal lengths": {"loss_type": "grpo", "lengths": FULL},
    "dr_grpo, equal lengths": {"loss_type": "dr_grpo", "lengths": FULL, "dual_clip": 3.0},
}


def trainer_of(case: dict[str, Any], model: Path, folder: str) -> GRPOTrainer:
    """A trainer with the settings of a case."""
    arguments = GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=SAMPLES,
        num_generations=SAMPLES,
        max_completion_length=LONGEST,
        loss_type=case.get("loss_type", "dapo"),
        epsilon=0.2,
        epsilon_high=case.get("clip_high", 0.28),
        delta=case.get("dual_clip"),
        beta=case.get("kl_coef", 0.0),
        use_bias_correction_kl=False,  # its default weighs k3 by the ratio; ours does not
        vllm_importance_sampling_mode="token_truncate",
        vllm_importance_sampling_clip_max=case.get("tis_cap", 2.0),
        gradient_checkpointing=False,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(model, padding_side="left"),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "a"}]),
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    # There is no engine here; what it would have returned is in the case's tensors.
    trainer.use_vllm = "tis_cap" in case
    return trainer


def measure(name: str, case: dict[str, Any], model: Path) -> dict[str, Any]:
    """One case: its settings, its tensors, and TRL's answer."""
    tensors = seeded(sum(name.encode()), close=case.get("close", False))
    lengths = case.get("lengths", LENGTHS)
    mask = (torch.arange(LONGEST) < torch.tensor(lengths)[:, None]).long()
    logprobs = tensors["logprobs"].requires_grad_()
    inputs = {
        "prompt_ids": torch.ones(SAMPLES, 1, dtype=torch.long),
        "prompt_mask": torch.ones(SAMPLES, 1, dtype=torch.long),
        "completion_ids": torch.ones(SAMPLES, LONGEST, dtype=torch.long),
        "completion_mask": mask,
        "advantages": tensors["advantages"],
        "ref_per_token_logps": tensors["base"],
        "num_items_in_batch": mask.sum(),
    }
    old = tensors["old"] if case.get("old", True) else None
    if old is not None:
        inputs["old_per_token_logps"] = old
    if "tis_cap" in case:
        before = logprobs.detach() if old is None else old
        inputs["importance_sampling_ratio"] = (
            (before - tensors["engine"]).exp().clamp(max=case["tis_cap"])
        )
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(case, model, folder)
        trainer._get_per_token_logps_and_entropies = lambda *_, **__: (
            logprobs,
            torch.zeros_like(logprobs),
            None,
        )
        loss = trainer._compute_loss(trainer.model, inputs)
        loss.backward()
    assert logprobs.grad is not None
    settings = {key: value for key, value in case.items() if key not in ("lengths", "close")}
    lists = {key: rounded(tensor, lengths) for key, tensor in tensors.items()}
    return {
        "name": name,
        "settings": settings,
        "tensors": lists,
        "loss": loss.item(),
        "gradients": rounded(logprobs.grad, lengths),
    }


def seeded(seed: int, *, close: bool) -> dict[str, Tensor]:
    """Log-probabilities of a few completions under each policy, and their advantages.

    `close`: engine and trainer differ by less than the clip.
    """
    generator = torch.Generator().manual_seed(seed)

    def near(center: Tensor, spread: float) -> Tensor:
        return center + spread * torch.randn(SAMPLES, LONGEST, generator=generator)

    old = near(torch.full((SAMPLES, LONGEST), -1.5), 0.4)
    logprobs = near(old, 0.4)
    engine = logprobs.detach() + 0.2 * torch.rand(SAMPLES, LONGEST, generator=generator) - 0.1
    return {
        "logprobs": logprobs,
        "old": old,
        "engine": engine if close else near(old, 0.4),
        "base": near(logprobs, 0.5),
        "advantages": torch.randn(SAMPLES, 1, generator=generator).expand(-1, LONGEST).clone(),
    }


def rounded(tensor: Tensor, lengths: tuple[int, ...]) -> list[list[float]]:
    """The rows without their padding."""
    return [row[:length].tolist() for row, length in zip(tensor.detach(), lengths, strict=True)]


def main() -> None:
    """Write all cases."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.trl.losses")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    cases = [measure(name, case, arguments.model) for name, case in CASES.items()]
    versions = {package: version(package) for package in ("trl", "torch", "transformers")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"versions": versions, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
