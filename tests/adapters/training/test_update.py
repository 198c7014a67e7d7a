"""Updates against a plain float64 computation, one sample at a time, without padding or PEFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from adapters.batch import LearnerConfig, TrainSample
from tests.adapters.training.naive import plain_logprobs, plain_loss

if TYPE_CHECKING:
    from torch import Tensor

    from adapters.training.policy import Policy

pytestmark = pytest.mark.train

CONFIG = LearnerConfig(rank=4, alpha=8, learning_rate=1e-2, token_budget=40, temperature=0.8)


@pytest.fixture
def trained(policy: Policy, samples: list[TrainSample]) -> Policy:
    """A policy two updates away from the identity, so that A and B both have gradients."""
    from adapters.training.update import update

    policy.open(CONFIG, None, None)
    update(policy, samples)
    update(policy, samples)
    return policy


def reopened(policy: Policy, config: LearnerConfig, folder: Path) -> dict[str, Tensor]:
    """Open the policy's adapter again with another configuration; its weights in float64."""
    from adapters.training.adapter_files import read_adapter

    policy.save(folder / "adapter", folder / "state")
    policy.open(config, folder / "adapter", folder / "state")
    stored = read_adapter(folder / "adapter", policy.base.linears, config.rank, config.alpha)
    return {name: tensor.double().requires_grad_() for name, tensor in stored.items()}


def gradients(policy: Policy, run: Callable[[], Any]) -> tuple[dict[str, Tensor], Any]:
    """The gradients with which `run` updates, and its result."""
    seen: dict[str, Tensor] = {}
    apply = policy.apply_gradients

    def record(learning_rate: float) -> float:
        for name, parameter in policy._opened().served.items():
            seen[name] = parameter.grad.clone()  # pyright: ignore[reportOptionalMemberAccess]
        return apply(learning_rate)

    policy.apply_gradients = record
    try:
        return seen, run()
    finally:
        policy.apply_gradients = apply


VARIANTS = {
    "default": {},
    "penalty to the base": {"kl_coef": 0.3},
    "no weight": {"tis_cap": None},
    "low cap": {"tis_cap": 0.9, "dual_clip": None},
    "narrow range": {"clip_low": 0.05, "clip_high": 0.05, "dual_clip": 1.2},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_loss_and_gradients_are_those_of_the_page(
    trained: Policy,
    model_dir: Path,
    samples: list[TrainSample],
    tmp_path: Path,
    variant: dict[str, Any],
) -> None:
    import torch

    from adapters.training.update import update

    config = msgspec.structs.replace(CONFIG, **variant)
    weights = reopened(trained, config, tmp_path)
    expected = plain_loss(model_dir, weights, samples, config)
    expected.backward()
    found, stepped = gradients(trained, lambda: update(trained, samples))

    assert stepped.loss == pytest.approx(expected.item(), abs=1e-6)
    assert (stepped.clip_fraction > 0) is (config.tis_cap is not None)
    squares = torch.tensor(0.0, dtype=torch.float64)
    for name, weight in weights.items():
        assert weight.grad is not None
        torch.testing.assert_close(found[name].double(), weight.grad, rtol=1e-3, atol=1e-6)
        squares += weight.grad.square().sum()
    assert stepped.grad_norm == pytest.approx(squares.sqrt().item(), rel=1e-4)


def test_reported_means_are_over_completion_tokens(
    policy: Policy, model_dir: Path, samples: list[TrainSample]
) -> None:
    import torch

    from adapters.training.update import update

    policy.open(CONFIG, None, None)
    logprobs = torch.cat(
        [plain_logprobs(model_dir, {}, sample, CONFIG) for sample in samples]
    ).detach()
    engine = torch.tensor([lp for s in samples for lp in s.inference_logprobs]).double()
    stepped = update(policy, samples)
    assert (stepped.num_samples, stepped.num_tokens) == (len(samples), len(logprobs))
    assert stepped.entropy == pytest.approx(-logprobs.mean().item(), abs=1e-5)
    gap = logprobs - engine
    assert stepped.mismatch == pytest.approx(gap.abs().mean().item(), abs=1e-5)
    assert stepped.mismatch_kl == pytest.approx((gap.exp() - gap - 1).mean().item(), rel=1e-4)
    assert stepped.kl_base is None


def test_the_split_into_microbatches_does_not_matter(
    trained: Policy, samples: list[TrainSample], tmp_path: Path
) -> None:
    import torch

    from adapters.training.update import update

    trained.save(tmp_path / "adapter", tmp_path / "state")
    found: list[dict[str, Tensor]] = []
    for token_budget in (1, 33, 10_000):
        config = msgspec.structs.replace(CONFIG, token_budget=token_budget)
        trained.open(config, tmp_path / "adapter", tmp_path / "state")
        found.append(gradients(trained, lambda: update(trained, samples))[0])
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name], rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(found[2][name], found[0][name], rtol=1e-3, atol=1e-6)


def test_rewarded_completions_become_likelier_and_others_less(policy: Policy) -> None:
    from adapters.training.update import score, update

    policy.open(msgspec.structs.replace(CONFIG, temperature=1.0), None, None)
    pair = [
        TrainSample([5, 6], [7, 8, 9], [], [0.5] * 3),
        TrainSample([5, 6], [10, 11], [], [-0.5] * 2),
    ]

    def totals() -> list[float]:
        return [sum(tokens) for tokens in logprobs()]

    def logprobs() -> list[list[float]]:
        return score(policy, pair, under="adapter", temperature=1.0, token_budget=64)

    before = totals()
    for _ in range(3):
        update(
            policy,
            [
                msgspec.structs.replace(sample, inference_logprobs=tokens)
                for sample, tokens in zip(pair, logprobs(), strict=True)
            ],
        )
    after = totals()
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_the_identity_scores_like_the_base(policy: Policy, samples: list[TrainSample]) -> None:
    from adapters.training.update import score

    policy.open(CONFIG, None, None)
    adapter = score(policy, samples, under="adapter", temperature=0.7, token_budget=50)
    base = score(policy, samples, under="base", temperature=0.7, token_budget=50)
    assert adapter == base


def test_scores_come_in_the_order_of_the_samples(
    policy: Policy, samples: list[TrainSample], model_dir: Path
) -> None:
    from adapters.training.update import score

    scores = score(policy, samples, under="base", temperature=CONFIG.temperature, token_budget=20)
    for sample, tokens in zip(samples, scores, strict=True):
        assert tokens == pytest.approx(
            plain_logprobs(model_dir, {}, sample, CONFIG).tolist(), abs=1e-5
        )


def test_kl_to_the_base_is_reported_where_it_is_asked_for(
    trained: Policy, samples: list[TrainSample], tmp_path: Path
) -> None:
    from adapters.training.update import update

    trained.save(tmp_path / "adapter", None)
    trained.open(msgspec.structs.replace(CONFIG, kl_coef=0.1), tmp_path / "adapter", None)
    kl = update(trained, samples).kl_base
    assert kl is not None
    assert kl > 0


BROKEN = {
    "no samples": [],
    "empty completion": [TrainSample([1], [], [], [])],
    "unknown token": [TrainSample([1], [64], [-1.0], [1.0])],
    "negative token": [TrainSample([-1], [3], [-1.0], [1.0])],
    "too long": [TrainSample([1] * 60, [2] * 5, [-1.0] * 5, [1.0] * 5)],
    "too few log-probabilities": [TrainSample([1], [2, 3], [-1.0], [1.0] * 2)],
    "too many advantages": [TrainSample([1], [2, 3], [-1.0] * 2, [1.0] * 3)],
    "not finite": [TrainSample([1], [2], [float("-inf")], [1.0])],
    "advantage not finite": [TrainSample([1], [2], [-1.0], [float("nan")])],
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_bad_sample_is_refused_and_changes_nothing(
    trained: Policy, samples: list[TrainSample], broken: list[TrainSample]
) -> None:
    from adapters.training.update import score, update

    before = score(trained, samples, under="adapter", temperature=1.0, token_budget=50)
    with pytest.raises(ValueError, match=r"sample"):
        update(trained, [*samples, *broken] if broken else [])
    after = score(trained, samples, under="adapter", temperature=1.0, token_budget=50)
    assert after == before


def test_a_gradient_that_is_not_finite_changes_nothing(
    trained: Policy, samples: list[TrainSample]
) -> None:
    from adapters.training.update import score, update

    before = score(trained, samples, under="adapter", temperature=1.0, token_budget=50)
    absurd = [msgspec.structs.replace(samples[0], advantages=[-1e300] * len(samples[0].advantages))]
    with pytest.raises(FloatingPointError, match=r"norm"):
        update(trained, absurd)
    after = score(trained, samples, under="adapter", temperature=1.0, token_budget=50)
    assert after == before


def test_where_memory_runs_out_gradients_are_checkpointed(
    policy: Policy, samples: list[TrainSample], tmp_path: Path
) -> None:
    import torch

    from adapters.training.update import update

    policy.open(CONFIG, None, None)
    update(policy, samples)
    reopened(policy, CONFIG, tmp_path)
    expected, stepped = gradients(policy, lambda: update(policy, samples))

    policy.open(CONFIG, tmp_path / "adapter", tmp_path / "state")
    model, logprobs, calls = policy.base.model, policy.logprobs, 0

    def run_out(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if not model.is_gradient_checkpointing and calls == 2:
            raise torch.OutOfMemoryError("no more")
        return logprobs(*arguments, **named)

    policy.logprobs = run_out
    try:
        found, frugal = gradients(policy, lambda: update(policy, samples))
        assert model.is_gradient_checkpointing
    finally:
        policy.logprobs = logprobs
        model.gradient_checkpointing_disable()
        model.eval()
    assert calls > 3
    assert frugal.loss == pytest.approx(stepped.loss, abs=1e-7)
    assert (frugal.num_tokens, frugal.num_updates) == (stepped.num_tokens, 1)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


def test_memory_that_is_not_enough_in_any_way_is_reported(
    trained: Policy, samples: list[TrainSample]
) -> None:
    import torch

    from adapters.training.update import score, update

    before = score(trained, samples, under="adapter", temperature=1.0, token_budget=50)
    model, logprobs = trained.base.model, trained.logprobs

    def run_out(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("no more")

    trained.logprobs = run_out
    try:
        with pytest.raises(torch.OutOfMemoryError):
            update(trained, samples)
    finally:
        trained.logprobs = logprobs
        model.gradient_checkpointing_disable()
        model.eval()
    assert score(trained, samples, under="adapter", temperature=1.0, token_budget=50) == before
