"""One call of the worker for each step, in the place of two.

vLLM's scheduler asks its worker for a step's logits, waits, and then asks it to sample, so that a
grammar's bitmask can be made in between. Where no request of a step has a grammar, the worker
samples at once here, and its answer to the first question is that to both. On a CPU, where there is
no asynchronous scheduling, that is a message and a wait less on both sides in every step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

ExecuteModel = Callable[[Any, Any], Any]


def sample_at_once(execute_model: ExecuteModel) -> ExecuteModel:
    """`execute_model` of a worker, with the samples of steps that need no grammar."""

    @functools.wraps(execute_model)
    def execute(worker: Any, scheduled: Any) -> Any:
        made = execute_model(worker, scheduled)
        if made is None and not scheduled.has_structured_output_requests:
            return worker.sample_tokens(None)
        return made

    return execute


def merge_calls() -> None:
    """Put it into vLLM's CPU worker, once. AttributeError if the worker is another."""
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.worker.cpu_worker import CPUWorker

    worker: Any = CPUWorker
    if "has_structured_output_requests" not in SchedulerOutput.__dataclass_fields__:
        raise AttributeError("this vLLM's scheduler does not say which steps need a grammar")
    if "execute_model" not in vars(worker):
        worker.execute_model = sample_at_once(worker.execute_model)
