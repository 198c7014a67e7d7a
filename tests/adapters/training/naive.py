"""Log-probabilities and losses in float64, one sample at a time, without padding or PEFT."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.batch import LearnerConfig, TrainSample

if TYPE_CHECKING:
    from torch import Tensor


@functools.cache
def _float64_model(model_dir: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(model_dir, dtype=torch.float64)


def plain_logprobs(
    model_dir: Path, weights: Mapping[str, Tensor], sample: TrainSample, config: LearnerConfig
) -> Tensor:
    """Log-probabilities of one completion with LoRA added to the base weights."""
    import torch

    model = _float64_model(model_dir)
    changed = {}
    for name, parameter in model.named_parameters():
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{layer}.lora_A.weight" in weights:
            a, b = weights[f"{layer}.lora_A.weight"], weights[f"{layer}.lora_B.weight"]
            changed[name] = parameter.detach() + b @ a * (config.alpha / config.rank)
    ids = torch.tensor([[*sample.prompt_ids, *sample.completion_ids]])
    logits = torch.func.functional_call(model, changed, (ids,)).logits[0] / config.temperature
    first = len(sample.prompt_ids)
    return logits.log_softmax(-1)[first - 1 : -1].gather(1, ids[0, first:, None])[:, 0]


def plain_loss(
    model_dir: Path,
    weights: Mapping[str, Tensor],
    samples: Sequence[TrainSample],
    config: LearnerConfig,
) -> Tensor:
    """The loss of a step's only update as the page says it, token by token."""
    import torch

    terms: list[Tensor] = []
    for sample in samples:
        logprobs = plain_logprobs(model_dir, weights, sample, config)
        reference = plain_logprobs(model_dir, {}, sample, config).detach()
        for logprob, engine, advantage, ref in zip(
            logprobs, sample.inference_logprobs, sample.advantages, reference, strict=True
        ):
            weight = _weight_of_only_update(
                (logprob.detach() - engine).exp().item(), advantage, config
            )
            policy = -weight * advantage * (logprob - logprob.detach()).exp()
            terms.append(policy + config.kl_coef * _k3(logprob, ref))
    return torch.stack(terms).mean()


def _weight_of_only_update(ratio: float, advantage: float, config: LearnerConfig) -> float:
    if config.tis_cap is None:
        return 1.0
    too_high = advantage > 0 and ratio > 1 + config.clip_high
    too_low = advantage < 0 and ratio < 1 - config.clip_low
    dual = config.dual_clip is not None and advantage < 0 and ratio > config.dual_clip
    return 0.0 if too_high or too_low or dual else min(ratio, config.tis_cap)


def ppo_loss(
    model_dir: Path,
    weights: Mapping[str, Tensor],
    samples: Sequence[TrainSample],
    old: Sequence[Tensor],
    config: LearnerConfig,
) -> Tensor:
    """The loss of one of several updates, as PPO's paper has it."""
    import torch

    terms: list[Tensor] = []
    for sample, before in zip(samples, old, strict=True):
        ratio = (plain_logprobs(model_dir, weights, sample, config) - before).exp()
        advantages = torch.tensor(sample.advantages, dtype=torch.float64)
        clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
        objective = torch.minimum(ratio * advantages, clipped * advantages)
        if config.dual_clip is not None:
            bounded = torch.maximum(objective, config.dual_clip * advantages)
            objective = torch.where(advantages < 0, bounded, objective)
        if config.tis_cap is not None:
            engine = torch.tensor(sample.inference_logprobs, dtype=torch.float64)
            objective = objective * (before - engine).exp().clamp(max=config.tis_cap)
        reference = plain_logprobs(model_dir, {}, sample, config).detach()
        logprobs = plain_logprobs(model_dir, weights, sample, config)
        terms.append(-objective + config.kl_coef * _k3(logprobs, reference))
    return torch.cat(terms).mean()


def _k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    return (reference - logprobs).exp() - (reference - logprobs) - 1
