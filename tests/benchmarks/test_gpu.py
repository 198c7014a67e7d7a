from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import Cost, Load, Shape, claims, measure, watch

TINY = Shape("tiny", 32, 48, 2, 4, 2, vocab_size=300)
LOAD = Load(prompts=2, samples=2, prompt_tokens=5, completion_tokens=7, updates=1)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own imports


@pytest.mark.train
def test_without_a_gpu_it_says_so_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    monkeypatch.setattr("benchmarks.result.RESULTS", tmp_path)
    gpu.main()
    assert capsys.readouterr().out.strip() == gpu.NO_DEVICE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.train
def test_a_tiny_model_is_made_and_trained_in_the_trainers_process() -> None:
    readings = count(2**30, 2**20)
    cost = measure(TINY, LOAD, device="cpu", memory=lambda: next(readings))
    assert cost.num_tokens == 2 * 2 * 7
    assert cost.num_parameters == 300 * 32 + _layers(TINY) + 32
    assert cost.tokens_per_s == pytest.approx(cost.num_tokens / cost.step_s)
    assert cost.peak_memory_gib > 0


def _layers(shape: Shape) -> int:
    """Parameters of the decoder layers, counted by hand."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    kv = hidden // shape.num_heads * shape.num_kv_heads
    attention = 2 * hidden * hidden + 2 * hidden * kv + hidden + 2 * kv  # with biases of q, k, v
    return shape.num_layers * (attention + 3 * hidden * inner + 2 * hidden)


def test_an_update_at_the_floor_uses_all_of_the_device() -> None:
    cost = Cost(
        "x", num_parameters=10, tokens_per_s=1.0, step_s=2.0, peak_memory_gib=0.0, num_tokens=100
    )
    (claim,) = claims([cost], rate=2000.0)
    assert claim.value == 1.0
    assert claim.holds


def test_the_peak_outlives_the_moment() -> None:
    readings = iter([1, 9, *[2] * 10**6])
    with watch(lambda: next(readings)) as peak:
        while peak() < 9:
            pass
    assert peak() == 9
