"""The loss on hand-computed numbers."""

from __future__ import annotations

import math

import pytest

pytestmark = pytest.mark.train

CASES = {  # name: (trainer - engine log-probability, advantage, weight of the token)
    "on policy": (0.0, 0.5, 1.0),
    "above the range, pushed up: clipped": (0.5, 0.5, 0.0),
    "above the range, pushed down: weighted": (0.5, -0.5, math.exp(0.5)),
    "far above, pushed down: capped": (1.0, -0.5, 2.0),
    "below the range, pushed down: clipped": (-0.5, -0.5, 0.0),
    "below the range, pushed up: weighted": (-0.5, 0.5, math.exp(-0.5)),
    "inside the range, up": (0.2, 0.5, math.exp(0.2)),
    "inside the range, down": (-0.2, -0.5, math.exp(-0.2)),
    "no advantage": (1.0, 0.0, 2.0),
}


@pytest.mark.parametrize(("gap", "advantage", "weight"), CASES.values(), ids=CASES.keys())
def test_gradient_of_a_token_is_weight_times_advantage(
    gap: float, advantage: float, weight: float
) -> None:
    import torch

    from adapters.training.loss import policy_losses

    logprobs = torch.tensor([-1.0 + gap], dtype=torch.float64, requires_grad=True)
    losses = policy_losses(
        logprobs,
        torch.tensor([-1.0], dtype=torch.float64),
        torch.tensor([advantage], dtype=torch.float64),
        clip_low=0.2,
        clip_high=0.28,
        tis_cap=2.0,
    )
    losses.policy.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.item() == pytest.approx(-weight * advantage)
    assert losses.policy.item() == pytest.approx(-weight * advantage)
    assert losses.clipped.item() is (weight == 0.0)


def test_k3_is_the_kl_divergence_on_average() -> None:
    import torch

    from adapters.training.loss import k3

    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    q = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    exact = (p * (p / q).log()).sum()
    assert (p * k3(p.log(), q.log())).sum().item() == pytest.approx(exact.item())


def test_k3_of_equal_policies_is_zero() -> None:
    import torch

    from adapters.training.loss import k3

    same = torch.tensor([-0.1, -3.0])
    assert k3(same, same).tolist() == [0.0, 0.0]
