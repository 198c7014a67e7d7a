"""Packed rows against padded ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from adapters.batch import LearnerConfig, TrainSample

if TYPE_CHECKING:
    from adapters.training.microbatches import MicroBatch

pytestmark = pytest.mark.train

CONFIG = LearnerConfig(rank=4, alpha=8, learning_rate=1e-2, token_budget=40, kl_coef=0.1)


@pytest.fixture(scope="module")
def padded_base(model_dir: Path) -> Any:
    """The model as if it could not be packed."""
    from adapters.training.base_model import load_base

    base = load_base(str(model_dir), device="cpu", dtype="float32")
    base.model.set_attn_implementation("sdpa")
    return replace(base, packed=False)


@pytest.fixture
def padded(padded_base: Any) -> Iterator[Any]:
    from adapters.training.policy import Policy

    policy = Policy(padded_base)
    yield policy
    policy.close()


def parts(samples: list[TrainSample], token_budget: int, *, packed: bool) -> list[MicroBatch]:
    import torch

    from adapters.training.microbatches import microbatches

    found = microbatches(
        samples, token_budget=token_budget, packed=packed, device=torch.device("cpu")
    )
    return list(found)


def test_the_bundled_kind_of_model_is_packed(float32_base: Any, bfloat16_base: Any) -> None:
    assert float32_base.packed
    assert bfloat16_base.packed


@pytest.mark.parametrize("token_budget", [1, 23, 10_000])
def test_scores_are_those_of_padded_samples(
    policy: Any, padded: Any, samples: list[TrainSample], token_budget: int
) -> None:
    from adapters.training.update import score

    settings: dict[str, Any] = {"under": "base", "temperature": 0.9, "token_budget": token_budget}
    for ours, theirs in zip(
        score(policy, samples, **settings), score(padded, samples, **settings), strict=True
    ):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_updates_are_those_of_padded_samples(
    policy: Any, padded: Any, samples: list[TrainSample]
) -> None:
    import torch

    from adapters.training.update import update

    for one in (policy, padded):
        one.open(CONFIG, None, None)
    for _ in range(2):
        ours, theirs = update(policy, samples), update(padded, samples)
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-6)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)
    for name, master in policy._opened().masters.items():
        torch.testing.assert_close(
            master, padded._opened().masters[name].detach(), rtol=1e-3, atol=1e-4
        )


def test_gradient_checkpointing_changes_no_number(
    policy: Any, model_dir: Path, samples: list[TrainSample]
) -> None:
    from adapters.training.base_model import load_base
    from adapters.training.policy import Policy
    from adapters.training.update import update

    base = load_base(str(model_dir), device="cpu", dtype="float32", gradient_checkpointing=True)
    frugal = Policy(base)
    for one in (policy, frugal):
        one.open(CONFIG, None, None)
    assert base.packed
    for _ in range(2):
        ours, theirs = update(frugal, samples), update(policy, samples)
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-6)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-5)


def test_no_token_is_read_twice_and_none_is_padding(samples: list[TrainSample]) -> None:
    found = parts(samples, 10_000, packed=True)
    shared = [batch for batch in found if batch.layout is not None and batch.layout.prefix]
    assert len(shared) == 2
    read = sum(batch.input_ids.numel() for batch in found)
    whole = sum(len(s.prompt_ids) + len(s.completion_ids) - 1 for s in samples)
    spared = sum(
        batch.layout.prefix * (len(batch.lengths) - 1)
        for batch in shared
        if batch.layout is not None
    )
    assert read == whole - spared


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("token_budget", [1, 12, 30, 10_000])
def test_every_target_is_predicted_by_the_token_before_it(
    samples: list[TrainSample], token_budget: int, packed: bool
) -> None:
    seen: list[int] = []
    for batch in parts(samples, token_budget, packed=packed):
        assert batch.lengths == tuple(len(samples[i].completion_ids) for i in batch.indices)
        before = batch.input_ids.flatten()[batch.positions].tolist()
        targets = batch.targets.tolist()
        for index, length in zip(batch.indices, batch.lengths, strict=True):
            sample = samples[index]
            assert targets[:length] == sample.completion_ids
            assert before[:length] == [sample.prompt_ids[-1], *sample.completion_ids[:-1]]
            before, targets = before[length:], targets[length:]
        seen.extend(batch.indices)
    assert sorted(seen) == list(range(len(samples)))


def test_a_sliding_window_is_not_packed(model_dir: Path, tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from adapters.training.base_model import load_base

    config = Qwen2Config.from_pretrained(model_dir)
    config.layer_types = ["full_attention", "sliding_attention"]
    config.sliding_window = 4
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    for file in model_dir.glob("token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    base = load_base(str(tmp_path), device="cpu", dtype="float32")
    assert not base.packed
    assert base.model.config._attn_implementation == "sdpa"


def test_a_model_that_computes_something_else_stays_as_it_was(float32_base: Any) -> None:
    from adapters.training import packing

    model = float32_base.model
    model.set_attn_implementation("sdpa")
    layers = model.base_model.layers
    forward = layers[0].self_attn.forward

    def softly(*arguments: Any, **named: Any) -> Any:
        return forward(*arguments, softcap=30.0, **named)

    layers[0].self_attn.forward = softly
    try:
        assert not packing.try_packing(model)
        assert model.config._attn_implementation == "sdpa"
    finally:
        layers[0].self_attn.forward = forward
        assert packing.try_packing(model)
