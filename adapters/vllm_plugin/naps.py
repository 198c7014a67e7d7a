"""Processes of vLLM that wait for each other, and leave the cores meanwhile to those that work.

The engine's scheduler waits for the worker's every step, and the worker for the scheduler, in a
loop that only offers its core to others (`sched_yield`) and takes it again at once. On a few cores
that costs whoever works beside it, a trainer above all. A nap between two looks costs a step less
than a hundredth of its time.
"""

from __future__ import annotations

import time

NAP_S = 5e-5  # about twice that with the timer's slack


def nap() -> None:
    """In the place of `sched_yield`."""
    time.sleep(NAP_S)


def nap_while_waiting() -> None:
    """Make the message queues of this process's vLLM nap. May be called any number of times.

    Raises:
        AttributeError: this vLLM waits in another way.
    """
    from vllm.distributed.device_communicators import shm_broadcast

    _ = shm_broadcast.sched_yield
    shm_broadcast.sched_yield = nap
