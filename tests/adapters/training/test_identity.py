"""The identity adapter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.train


def test_the_command_writes_an_adapter_that_changes_nothing(
    model_dir: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    folder = tmp_path / "base" / "identity"
    command = [sys.executable, "-m", "adapters.training", "identity", "--model", str(model_dir)]
    subprocess.run(
        [*command, "--rank", "4", "--alpha", "8", "--out", str(folder)], check=True, timeout=120
    )
    tensors = load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * 2  # A and B of seven linear layers in each of two blocks
    assert not any(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)
    assert all(tensor.any() for name, tensor in tensors.items() if "lora_A" in name)


def test_an_identity_that_is_there_stays(model_dir: Path, tmp_path: Path) -> None:
    from adapters.training.identity import ensure_identity

    ensure_identity(str(model_dir), rank=4, alpha=8, folder=tmp_path / "identity")
    before = (tmp_path / "identity").stat().st_ino
    ensure_identity(str(model_dir), rank=4, alpha=8, folder=tmp_path / "identity")
    assert (tmp_path / "identity").stat().st_ino == before


def test_another_adapter_in_its_place_is_refused(model_dir: Path, tmp_path: Path) -> None:
    from adapters.training.identity import ensure_identity

    ensure_identity(str(model_dir), rank=4, alpha=8, folder=tmp_path / "identity")
    with pytest.raises(ValueError, match=r"\(4, 8\), not \(2, 8\)"):
        ensure_identity(str(model_dir), rank=2, alpha=8, folder=tmp_path / "identity")
