"""Users first, step by step: a scheduler for vLLM in which background sequences rest while users
are being answered.

vLLM's priorities decide who is let in, not who goes on: once a cycle's samples run, every step of a
user's answer is as long as all of them make it, on a CPU two to three times as long. Here they stay
where they are, with what they have in the cache, and are left out of the steps that users are in,
except for a share of the time, so that learning never stands still.

It steps in before `Scheduler.schedule` and is otherwise vLLM's own, without asynchronous
scheduling, as vLLM 0.32 is on CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from vllm.v1.core.sched.request_queue import create_request_queue
from vllm.v1.core.sched.scheduler import Scheduler

BACKGROUND = 1  # requests of this priority and behind it are nobody's who waits
SHARE = 0.05  # of the time in which users are answered: steps that background sequences are in too
FULL = 0.9  # of the cache in use: who rests keeps what a waiting user may need


class Rest:
    """How long the background rests after a step that it shared with users. Seconds."""

    def __init__(self, share: float = SHARE, clock: Callable[[], float] = monotonic) -> None:
        self._pause = 1 / share - 1  # times the shared step
        self._clock = clock
        self._over_at = float("-inf")
        self._shared_since: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the next step may be shared."""
        return self._clock() >= self._over_at

    def end(self) -> None:
        """The next step may be shared, whatever was before."""
        self._over_at = float("-inf")

    def begin_shared(self) -> None:
        """A shared step begins."""
        self._shared_since = self._clock()

    def end_step(self) -> None:
        """A step has ended."""
        if self._shared_since is not None:
            now = self._clock()
            self._over_at = now + self._pause * (now - self._shared_since)
            self._shared_since = None


class PoliteScheduler(Scheduler):
    """See the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rest = Rest()

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Decide on the next step."""
        background = [request for request in self.running if request.priority >= BACKGROUND]
        if not self._serves_users(len(background)):
            return super().schedule(*args, **kwargs)
        if self.rest.is_over or self.get_kv_cache_usage() > FULL:
            if background or self._next_is_background:
                self.rest.begin_shared()
            return super().schedule(*args, **kwargs)
        for request in background:
            # As vLLM itself lets a sequence skip steps; the counter goes up first of all.
            request.next_decode_eligible_step = self.current_step + 2
        with self._only_users_let_in():
            decided = super().schedule(*args, **kwargs)
        if not decided.total_num_scheduled_tokens:  # nobody goes on: the user waits for room
            self.rest.end()
        return decided

    def update_from_output(self, *args: Any, **kwargs: Any) -> Any:
        """Take in what a step has brought."""
        self.rest.end_step()
        return super().update_from_output(*args, **kwargs)

    def _serves_users(self, num_background: int) -> bool:
        """Whether a user is in the next step. Who has no room yet is helped by all going on."""
        if len(self.running) > num_background:
            return True
        has_room = len(self.running) < self.max_num_running_reqs
        return has_room and bool(self.waiting) and not self._next_is_background

    @property
    def _next_is_background(self) -> bool:
        """Whether somebody waits, and only the background: users are in front of it."""
        return bool(self.waiting) and self.waiting.peek_request().priority >= BACKGROUND

    @contextmanager
    def _only_users_let_in(self) -> Generator[None]:
        if not self._next_is_background:
            yield
            return
        held = self.waiting
        self.waiting = create_request_queue(self.policy)
        try:
            yield
        finally:
            for request in self.waiting:  # was preempted in this step
                held.add_request(request)
            self.waiting = held
