"""Steps of several epochs and mini-batches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.batch import LearnerConfig, TrainSample
from tests.adapters.training.naive import plain_logprobs, ppo_loss

if TYPE_CHECKING:
    from adapters.training.policy import Policy

pytestmark = pytest.mark.train

CONFIG = LearnerConfig(
    rank=4,
    alpha=8,
    learning_rate=5e-3,
    schedule="cosine",
    warmup=0.2,
    total_updates=20,
    weight_decay=0.1,
    betas=(0.8, 0.95),
    epochs=2,
    minibatches=3,
    token_budget=40,
    temperature=0.8,
    kl_coef=0.05,
)


@pytest.fixture
def trained(policy: Policy, samples: list[TrainSample]) -> Policy:
    """A policy one step away from the identity, so that A and B both have gradients."""
    from adapters.training.update import update

    policy.open(CONFIG, None, None)
    update(policy, samples)
    return policy


def bytes_of(policy: Policy, folder: Path) -> list[bytes]:
    """The adapter and its optimizer, as they are written."""
    policy.save(folder / "adapter", folder / "state")
    names = ("adapter/adapter_model.safetensors", "state/state.safetensors")
    return [(folder / name).read_bytes() for name in names]


VARIANTS = {
    "all parts": {},
    "no dual clip, no weight": {"dual_clip": None, "tis_cap": None},
    "narrow": {"clip_low": 0.01, "clip_high": 0.01, "dual_clip": 1.01, "kl_coef": 0.0},
    "one epoch": {"epochs": 1, "minibatches": 4},
    "more mini-batches than samples": {"epochs": 1, "minibatches": 50},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_step_is_that_of_a_naive_ppo_loop(
    policy: Policy,
    model_dir: Path,
    samples: list[TrainSample],
    tmp_path: Path,
    variant: dict[str, Any],
) -> None:
    import torch

    from adapters.training.adapter_files import read_adapter
    from adapters.training.schedule import learning_rate
    from adapters.training.update import minibatches, update

    config = msgspec.structs.replace(CONFIG, **variant)
    first = msgspec.structs.replace(config, epochs=1, minibatches=1)
    policy.open(first, None, None)
    update(policy, samples)  # B is 0 in the identity, and A has no gradient
    policy.save(tmp_path / "adapter", None)
    policy.open(config, tmp_path / "adapter", None)
    stored = read_adapter(tmp_path / "adapter", policy.base.linears, config.rank, config.alpha)
    weights = {name: tensor.double().requires_grad_() for name, tensor in stored.items()}
    optimizer = torch.optim.AdamW(
        weights.values(), betas=config.betas, weight_decay=config.weight_decay
    )

    old = [plain_logprobs(model_dir, weights, sample, config).detach() for sample in samples]
    losses: list[float] = []
    for done, chosen in enumerate(minibatches(len(samples), config, seed=0)):
        part, before = [samples[index] for index in chosen], [old[index] for index in chosen]
        optimizer.zero_grad()
        loss = ppo_loss(model_dir, weights, part, before, config)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), config.max_grad_norm)
        optimizer.param_groups[0]["lr"] = learning_rate(config, done)
        optimizer.step()
        losses.append(loss.item())

    stepped = update(policy, samples)
    assert stepped.num_updates == len(losses) == policy.num_updates
    assert stepped.learning_rate == optimizer.param_groups[0]["lr"]
    for name, master in policy._opened().masters.items():
        torch.testing.assert_close(master.double(), weights[name].detach(), rtol=1e-3, atol=2e-4)


def test_the_first_ratio_is_one(policy: Policy, samples: list[TrainSample]) -> None:
    from adapters.training.update import update

    tight = msgspec.structs.replace(
        CONFIG, clip_low=1e-4, clip_high=1e-4, dual_clip=1.0001, learning_rate=0.0
    )
    policy.open(tight, None, None)
    assert update(policy, samples).clip_fraction == 0.0


def test_the_difference_to_the_engine_is_that_before_the_step(
    trained: Policy, samples: list[TrainSample]
) -> None:
    from adapters.training.update import score, update

    scores = score(trained, samples, under="adapter", temperature=0.8, token_budget=99)
    gaps = [
        abs(ours - engine)
        for sample, logprobs in zip(samples, scores, strict=True)
        for ours, engine in zip(logprobs, sample.inference_logprobs, strict=True)
    ]
    stepped = update(trained, samples)
    assert stepped.mismatch == pytest.approx(sum(gaps) / len(gaps), rel=1e-5)
    total = sum(sum(logprobs) for logprobs in scores)
    assert stepped.entropy == pytest.approx(-total / len(gaps), rel=1e-5)
    assert stepped.num_tokens == len(gaps)


def test_a_step_that_fails_in_its_middle_changes_nothing(
    trained: Policy, samples: list[TrainSample], tmp_path: Path
) -> None:
    from adapters.training.update import update

    before = bytes_of(trained, tmp_path / "before")
    apply, calls = trained.apply_gradients, 0

    def fail_late(learning_rate: float) -> float:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise FloatingPointError("the gradient's norm is nan")
        return apply(learning_rate)

    trained.apply_gradients = fail_late
    with pytest.raises(FloatingPointError):
        update(trained, samples)
    assert calls == 4
    assert bytes_of(trained, tmp_path / "after") == before

    trained.apply_gradients = apply
    assert trained.num_updates == 6
    assert update(trained, samples).num_updates == 6


def test_the_schedule_goes_on_where_the_stored_optimizer_was(
    trained: Policy, samples: list[TrainSample], tmp_path: Path
) -> None:
    from adapters.training.update import update

    trained.save(tmp_path / "adapter", tmp_path / "state")
    whole = update(trained, samples)
    trained.open(CONFIG, tmp_path / "adapter", tmp_path / "state")
    assert trained.num_updates == 6
    resumed = update(trained, samples)
    assert resumed.learning_rate == whole.learning_rate
    assert trained.num_updates == 12


@given(
    num_samples=st.integers(1, 40),
    epochs=st.integers(1, 3),
    parts=st.integers(1, 9),
    seed=st.integers(0, 5),
)
def test_each_epoch_goes_once_through_all_samples(
    num_samples: int, epochs: int, parts: int, seed: int
) -> None:
    from adapters.training.update import minibatches

    config = LearnerConfig(epochs=epochs, minibatches=parts)
    plan = list(minibatches(num_samples, config, seed=seed))
    assert plan == list(minibatches(num_samples, config, seed=seed))
    size = min(parts, num_samples)
    assert len(plan) == epochs * size
    for epoch in range(epochs):
        chosen = plan[epoch * size : (epoch + 1) * size]
        assert sorted(index for part in chosen for index in part) == list(range(num_samples))
        assert max(map(len, chosen)) - min(map(len, chosen)) <= 1


def test_another_step_has_other_minibatches() -> None:
    from adapters.training.update import minibatches

    config = LearnerConfig(minibatches=4)
    assert list(minibatches(32, config, seed=0)) != list(minibatches(32, config, seed=4))
