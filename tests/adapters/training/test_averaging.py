"""The mean of several adapters, on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from adapters.batch import LearnerConfig

if TYPE_CHECKING:
    from adapters.training.base_model import BaseModel

pytestmark = pytest.mark.train

WEIGHTS = "adapter_model.safetensors"
CONFIG = LearnerConfig(rank=4, alpha=8)


def written(base: BaseModel, folder: Path, seed: int, rank: int = 4) -> dict[str, Any]:
    """A random adapter, on disk."""
    import torch

    from adapters.training.adapter_files import identity_tensors, lora_config, write_adapter

    torch.manual_seed(seed)
    shapes = identity_tensors(base.linears, rank, seed)
    tensors = {name: torch.randn(tensor.shape) for name, tensor in shapes.items()}
    write_adapter(folder, lora_config(base.linears, rank, 8), tensors)
    return tensors


def test_every_weight_is_the_mean(float32_base: BaseModel, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from adapters.training.averaging import average

    parts = [written(float32_base, tmp_path / str(seed), seed) for seed in range(3)]
    files = average(
        float32_base, CONFIG, [tmp_path / str(seed) for seed in range(3)], tmp_path / "mean"
    )
    assert {path.name for path in files} == {"adapter_config.json", WEIGHTS}
    mean = load_file(tmp_path / "mean" / WEIGHTS)
    assert mean.keys() == parts[0].keys()
    for name, tensor in mean.items():
        expected = torch.stack([part[name].double() for part in parts]).mean(0)
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-6)
        assert tensor.dtype == float32_base.dtype


def test_the_mean_of_one_is_itself(float32_base: BaseModel, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from adapters.training.averaging import average

    part = written(float32_base, tmp_path / "a", 1)
    average(float32_base, CONFIG, [tmp_path / "a"], tmp_path / "mean")
    for name, tensor in load_file(tmp_path / "mean" / WEIGHTS).items():
        assert torch.equal(tensor, part[name])


def test_what_does_not_fit_is_refused_and_nothing_is_written(
    float32_base: BaseModel, tmp_path: Path
) -> None:
    from adapters.training.averaging import average

    written(float32_base, tmp_path / "a", 1)
    written(float32_base, tmp_path / "b", 2, rank=2)
    for some in ([tmp_path / "a", tmp_path / "b"], []):
        with pytest.raises(ValueError, match=r"rank|nothing"):
            average(float32_base, CONFIG, some, tmp_path / "mean")
    with pytest.raises(OSError, match="adapter_config"):
        average(float32_base, CONFIG, [tmp_path / "gone"], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
