"""Log-probabilities of given tokens, without ever holding the logits of all of them.

Only the positions that predict completion tokens go through the head, in chunks; in training each
chunk is computed again in the backward pass instead of being kept. The logits are made in the
base model's dtype and turned to float32 before the softmax, as vLLM does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

CHUNK_LOGITS = 2**25  # float32 logits in memory at once: 128 MiB

Head = Callable[[Tensor], Tensor]  # hidden states (n, d) -> logits (n, vocabulary)


def token_logprobs(
    hidden: Tensor, targets: Tensor, head: Head, *, num_ids: int, temperature: float
) -> Tensor:
    """(N,) float32 log-probabilities in nats of `targets` (N,) given `hidden` (N, d) states.

    The distribution is softmax(logits / temperature): the one that the engine sampled from.
    """
    chunk = max(1, CHUNK_LOGITS // num_ids)

    def chunk_logprobs(states: Tensor, ids: Tensor) -> Tensor:
        return -cross_entropy(head(states).float() / temperature, ids, reduction="none")

    if len(targets) <= chunk:
        return chunk_logprobs(hidden, targets)
    parts: list[Tensor] = []
    for states, ids in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        if torch.is_grad_enabled():
            part = checkpoint(
                chunk_logprobs, states, ids, use_reentrant=False, preserve_rng_state=False
            )
        else:
            part = chunk_logprobs(states, ids)
        parts.append(part)
    return torch.cat(parts)
