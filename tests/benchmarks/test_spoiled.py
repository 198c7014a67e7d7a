from __future__ import annotations

from pathlib import Path

import numpy as np

from adapters.manifest import WEIGHTS_NAME
from benchmarks.spoiled import with_noise
from tests.adapters.lora import pair, safetensors, write_adapter


def test_noise_changes_the_weights_and_nothing_else(tmp_path: Path) -> None:
    clean = safetensors(pair())
    source = write_adapter(tmp_path / "source", weights=clean)
    with_noise(source, tmp_path / "spoiled", 1.0)
    spoiled = (tmp_path / "spoiled" / WEIGHTS_NAME).read_bytes()
    header = 8 + int.from_bytes(clean[:8], "little")
    assert spoiled[:header] == clean[:header]
    before = np.frombuffer(clean[header:], "<f4")
    after = np.frombuffer(spoiled[header:], "<f4")
    assert (before[:24] != after[:24]).all()
    assert (after[24:] == 0).all()  # no spread, no noise
    assert (source / WEIGHTS_NAME).read_bytes() == clean


def test_no_noise_is_a_copy(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "source")
    with_noise(source, tmp_path / "copy", 0.0)
    assert (tmp_path / "copy" / WEIGHTS_NAME).read_bytes() == (source / WEIGHTS_NAME).read_bytes()
