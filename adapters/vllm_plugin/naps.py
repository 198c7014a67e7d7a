"""Processes of vLLM that wait for each other, and leave the cores meanwhile to those that work.

The engine's scheduler waits for the worker's every step, and the worker for the scheduler, in a
loop that only offers its core to others (`sched_yield`) and takes it again at once. On a few cores
that costs whoever works beside it, a trainer above all. A nap between two looks costs a step less
than a hundredth of its time; the longer the wait has been, the longer the next nap, since looking
has its price too. (To wait for the queue's own notification instead is not safe: vLLM loses some.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

NAP_S = 5e-5  # about twice that with the timer's slack
LONGEST_S = 5e-4
SHARE = 1 / 32  # of the time that has been waited


class Naps:
    """In the place of `sched_yield`. Who looks again soon after a nap is in the same wait."""

    def __init__(
        self,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep, self._clock = sleep, clock
        self._began = self._woke = float("-inf")

    def __call__(self) -> None:
        """Take the next nap."""
        now = self._clock()
        if now - self._woke > NAP_S:
            self._began = now
        self._sleep(min(max(SHARE * (now - self._began), NAP_S), LONGEST_S))
        self._woke = self._clock()


def nap_while_waiting() -> None:
    """Make the message queues of this process's vLLM nap. May be called any number of times.

    Raises:
        AttributeError: this vLLM waits in another way.
    """
    from vllm.distributed.device_communicators import shm_broadcast

    if not isinstance(shm_broadcast.sched_yield, Naps):
        module: Any = shm_broadcast
        module.sched_yield = Naps()
