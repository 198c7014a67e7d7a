"""Seeded requests in a prefill of several steps.

When a step computes only a part of a prompt, vLLM samples a token for that row all the same, drops
it, and turns the request's random generator back by an offset. CPU generators have none: in vLLM
0.32 the engine dies of it, at any request with a `seed` whose prompt does not fit into a step.
Here such a row's generator is out of sight during the step: nothing is drawn, nothing turned back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

SampleTokens = Callable[..., Any]


def spare_generators(sample_tokens: SampleTokens) -> SampleTokens:
    """`sample_tokens` of a model runner, without the generators of rows whose token is dropped."""

    @functools.wraps(sample_tokens)
    def sample(runner: Any, *args: Any, **kwargs: Any) -> Any:
        batch = runner.input_batch
        dropped = runner.discard_request_mask.np[: batch.num_reqs].nonzero()[0].tolist()
        generators = batch.generators
        spared = {row: generators.pop(row) for row in dropped if row in generators}
        try:
            return sample_tokens(runner, *args, **kwargs)
        finally:
            generators.update(spared)

    return sample


def mend_seeded_prefill() -> None:
    """Put it into vLLM's CPU model runner, once. AttributeError if the runner is another."""
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    runner: Any = CPUModelRunner
    if "sample_tokens" not in vars(runner):
        runner.sample_tokens = spare_generators(runner.sample_tokens)
