from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks.engine import (
    PLUGIN,
    SHIPPED,
    Rate,
    _summary,
    claims,
    difference,
    noisy_adapters,
)
from benchmarks.live_engine import LiveEngine

WEIGHTS = "adapter_model.safetensors"


def test_answers_that_are_equal_differ_by_their_logprobs() -> None:
    one = [[("a", -0.5), ("b", -1.0)], [("c", -0.1)]]
    other = [[("a", -0.5), ("b", -1.25)], [("c", -0.2)]]
    assert difference(one, other) == 0.25


def test_what_follows_where_answers_part_is_not_compared() -> None:
    one = [[("a", -0.5), ("x", -0.7), ("q", -9.0)]]
    other = [[("a", -0.5), ("y", -0.75), ("r", -1.0)]]
    assert difference(one, other) == pytest.approx(0.05)


def test_a_ratio_is_that_of_one_round() -> None:
    rounds = [
        (Rate(100.0, 200.0), Rate(90.0, 100.0)),
        (Rate(50.0, 100.0), Rate(40.0, 60.0)),  # a slow moment of the machine hits both
        (Rate(100.0, 200.0), Rate(70.0, 100.0)),
    ]
    found = _summary(rounds)
    assert (found["ratio"], found["cpu_ratio"]) == (0.8, 0.5)
    assert (found["base_tokens_per_s"], found["lora_tokens_per_s"]) == (100, 70)


def test_the_claims_are_about_the_plugin() -> None:
    ratios = {f"n={n}": {"ratio": 0.75} for n in (16, 64, 256)}
    data = {
        PLUGIN: {**ratios, "mixed_batch_difference": {"base": 0.0, "noise-0": 0.5}},
        SHIPPED: {"mixed_batch_difference": {"base": 0.0}},  # it was no mixed batch
        "shipped_difference": {"base": 0.0, "noise-0": 1e-6},
    }
    assert [claim.holds for claim in claims(data)] == [True, False, False, True, False, False]


def test_noise_changes_every_b_and_no_a(tmp_path: Path) -> None:
    identity = tmp_path / "identity"
    identity.mkdir()
    (identity / "adapter_config.json").write_text("{}")
    tensors = {"x.lora_A.weight": np.ones((2, 3), np.float32), "x.lora_B.weight": np.zeros((3, 2))}
    save_file(tensors, identity / WEIGHTS)
    one, other = noisy_adapters(identity, tmp_path, 2)
    first, second = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    assert (first["x.lora_A.weight"] == 1).all()
    assert (first["x.lora_B.weight"] != second["x.lora_B.weight"]).all()
    assert (one / "adapter_config.json").exists()


def test_only_the_workers_processor_time_counts() -> None:
    shell = shutil.which("bash")
    assert shell is not None
    spin = "i=0; while ((i < 200000)); do ((i += 1)); done; echo; read"
    started = [
        subprocess.Popen(
            [name, "-c", spin],
            executable=shell,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        for name in ("VLLM::Worker", "VLLM::EngineCore")
    ]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        worker, core = (LiveEngine("", os.getsid(process.pid)) for process in started)
        assert worker.cpu_s() > 0
        assert core.cpu_s() == 0
    finally:
        for process in started:
            process.communicate(b"\n")
