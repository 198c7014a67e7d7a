"""Log-probabilities in chunks are those of one big softmax."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.train


@pytest.mark.parametrize("num_chunk_logits", [1, 30, 10_000])
def test_chunks_change_neither_values_nor_gradients(
    monkeypatch: pytest.MonkeyPatch, num_chunk_logits: int
) -> None:
    import torch

    from adapters.training import logprobs
    from adapters.training.logprobs import token_logprobs

    monkeypatch.setattr(logprobs, "CHUNK_LOGITS", num_chunk_logits)
    torch.manual_seed(0)
    num_ids, temperature = 10, 0.7
    head = torch.nn.Linear(4, num_ids)
    hidden = torch.randn(13, 4, requires_grad=True)
    targets = torch.randint(num_ids, (13,))
    seen: list[int] = []

    def counting_head(states: torch.Tensor) -> torch.Tensor:
        seen.append(len(states))
        return head(states)

    weights = torch.randn(13)
    found = token_logprobs(hidden, targets, counting_head, num_ids=num_ids, temperature=temperature)
    (found_gradient,) = torch.autograd.grad((found * weights).sum(), hidden)
    table = (head(hidden) / temperature).log_softmax(-1)
    expected = table.gather(1, targets[:, None])[:, 0]
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), hidden)

    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_gradient, expected_gradient)
    assert max(seen) <= max(1, num_chunk_logits // num_ids)
