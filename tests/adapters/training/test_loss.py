"""The loss against hand-computed numbers, and against PPO written out naively in float64."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.batch import LearnerConfig

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.train

CONFIG = LearnerConfig(clip_low=0.2, clip_high=0.28, dual_clip=3.0, tis_cap=2.0)

ONE_UPDATE = {  # name: (trainer - engine log-probability, advantage, weight of the token)
    "on policy": (0.0, 0.5, 1.0),
    "above the range, pushed up: clipped": (0.5, 0.5, 0.0),
    "above the range, pushed down: weighted": (0.5, -0.5, math.exp(0.5)),
    "far above, pushed down: capped": (1.0, -0.5, 2.0),
    "above the dual clip, pushed down: clipped": (1.2, -0.5, 0.0),
    "below the range, pushed down: clipped": (-0.5, -0.5, 0.0),
    "below the range, pushed up: weighted": (-0.5, 0.5, math.exp(-0.5)),
    "inside the range, up": (0.2, 0.5, math.exp(0.2)),
    "inside the range, down": (-0.2, -0.5, math.exp(-0.2)),
    "no advantage": (1.0, 0.0, 2.0),
}


@pytest.mark.parametrize(("gap", "advantage", "weight"), ONE_UPDATE.values(), ids=ONE_UPDATE.keys())
def test_gradient_of_a_token_is_weight_times_advantage(
    gap: float, advantage: float, weight: float
) -> None:
    import torch

    from adapters.training.loss import policy_losses

    logprobs = torch.tensor([-1.0 + gap], dtype=torch.float64, requires_grad=True)
    engine = torch.tensor([-1.0], dtype=torch.float64)
    advantages = torch.tensor([advantage], dtype=torch.float64)
    losses = policy_losses(logprobs, None, engine, advantages, CONFIG)
    losses.policy.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.item() == pytest.approx(-weight * advantage)
    assert losses.policy.item() == pytest.approx(-weight * advantage)
    assert losses.clipped.item() is (weight == 0.0)


def test_without_a_cap_one_update_does_not_look_at_the_engine() -> None:
    import torch

    from adapters.training.loss import policy_losses

    config = msgspec.structs.replace(CONFIG, tis_cap=None)
    logprobs = torch.tensor([-1.0, -9.0], requires_grad=True)
    losses = policy_losses(logprobs, None, torch.tensor([-9.0, -1.0]), torch.ones(2), config)
    losses.policy.sum().backward()
    assert losses.clipped.tolist() == [False, False]
    assert torch.equal(logprobs.grad, torch.tensor([-1.0, -1.0]))  # pyright: ignore[reportArgumentType]


def naive_ppo(
    logprob: Tensor, old: float, engine: float, advantage: float, config: LearnerConfig
) -> Tensor:
    """PPO's clip, the dual clip and the truncated weight of one token, as their papers write it."""
    import torch

    ratio = torch.exp(logprob - old)
    low, high = torch.tensor(1 - config.clip_low), torch.tensor(1 + config.clip_high)
    objective = torch.minimum(
        ratio * advantage, torch.minimum(torch.maximum(ratio, low), high) * advantage
    )
    if config.dual_clip is not None and advantage < 0:
        objective = torch.maximum(objective, torch.tensor(config.dual_clip * advantage))
    weight = 1.0 if config.tis_cap is None else min(math.exp(old - engine), config.tis_cap)
    return -weight * objective


VARIANTS = list(
    itertools.product(
        [0.2, 0.9],  # clip_low
        [0.28, 5.0],  # clip_high
        [None, 1.5, 3.0],  # dual_clip
        [None, 0.5, 2.0],  # tis_cap
    )
)


@pytest.mark.parametrize(("low", "high", "dual", "cap"), VARIANTS)
def test_values_and_gradients_are_those_of_naive_ppo(
    low: float, high: float, dual: float | None, cap: float | None
) -> None:
    import torch

    from adapters.training.loss import policy_losses

    config = LearnerConfig(clip_low=low, clip_high=high, dual_clip=dual, tis_cap=cap)
    generator = torch.Generator().manual_seed(5)
    logprobs, old, engine, advantages = torch.randn(4, 300, generator=generator).double()
    logprobs = (old + 0.8 * logprobs).requires_grad_()
    losses = policy_losses(logprobs, old, engine, advantages, config)
    losses.policy.sum().backward()

    plain = logprobs.detach().clone().requires_grad_()
    expected = torch.stack(
        [
            naive_ppo(plain[at], old[at].item(), engine[at].item(), advantages[at].item(), config)
            for at in range(len(plain))
        ]
    )
    expected.sum().backward()
    assert plain.grad is not None
    torch.testing.assert_close(losses.policy.detach(), expected.detach())
    torch.testing.assert_close(logprobs.grad, plain.grad)
    assert torch.equal(losses.clipped, plain.grad == 0)
    assert 0 < losses.clipped.sum() < len(losses.clipped)


def test_a_ratio_beyond_all_numbers_stays_finite() -> None:
    import torch

    from adapters.training.loss import policy_losses

    config = msgspec.structs.replace(CONFIG, dual_clip=None)
    logprobs = torch.tensor([-1.0, -400.0], requires_grad=True)
    old = torch.tensor([-400.0, -1.0])
    for advantages in (torch.ones(2), -torch.ones(2)):
        losses = policy_losses(logprobs, old, old, advantages, config)
        losses.policy.sum().backward()
        assert losses.policy.isfinite().all()
    assert logprobs.grad is not None
    assert logprobs.grad.isfinite().all()


def test_k3_is_the_kl_divergence_on_average() -> None:
    import torch

    from adapters.training.loss import k3

    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    q = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    exact = (p * (p / q).log()).sum()
    assert (p * k3(p.log(), q.log())).sum().item() == pytest.approx(exact.item())


LOGPROB = st.floats(-30, 0)


@given(LOGPROB, LOGPROB)
def test_k3_is_never_negative(sampled_from: float, other: float) -> None:
    import torch

    from adapters.training.loss import k3

    value = k3(torch.tensor(sampled_from).double(), torch.tensor(other).double())
    assert value.item() >= -1e-12


def test_k3_of_equal_policies_is_zero() -> None:
    import torch

    from adapters.training.loss import k3

    same = torch.tensor([-0.1, -3.0])
    assert k3(same, same).tolist() == [0.0, 0.0]
