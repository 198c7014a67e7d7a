"""The mean of several adapters' weights.

Late in a run few groups disagree, so an update's direction is mostly noise, and the weights wander
around what they have learned. Their mean does not (Polyak and Juditsky, 1992; for fine-tuning
"model soups", arXiv 2203.05482; for policies WARP, arXiv 2406.16768). A LoRA's two factors are
averaged each by itself: the mean of products would be of a higher rank, and along one run the
factors are close, so the product of the means differs from it by their small covariance only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from adapters.batch import LearnerConfig
from adapters.training.adapter_files import lora_config, read_adapter, write_adapter
from adapters.training.base_model import BaseModel


@torch.no_grad()
def average(
    base: BaseModel, config: LearnerConfig, adapters: Sequence[Path], made: Path
) -> list[Path]:
    """Write the mean of `adapters` (at least one), summed in float32 and rounded to the dtype that
    the engine serves, into the folder `made`. Returns the files.

    Raises ValueError where one does not fit the base model or the others, OSError about files.
    """
    if not adapters:
        raise ValueError("there is nothing to average")
    total: dict[str, Tensor] = {}
    for folder in adapters:
        tensors = read_adapter(folder, base.linears, config.rank, config.alpha)
        for name, tensor in tensors.items():
            total[name] = total.get(name, torch.zeros(())) + tensor.float()
    mean = {name: (tensor / len(adapters)).to(base.dtype) for name, tensor in total.items()}
    return write_adapter(made, lora_config(base.linears, config.rank, config.alpha), mean)
