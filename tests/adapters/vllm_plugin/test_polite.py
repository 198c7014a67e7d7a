"""When background sequences rest; that vLLM lets them is shown in tests/e2e/test_engine.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of vLLM's own imports
]

USER, BACKGROUND = 0, 10
STEP_S = 0.1


@dataclass(eq=False)
class Asked:
    """As much of vLLM's request as matters here."""

    priority: int
    next_decode_eligible_step: int = 0
    arrival_time: float = 0.0
    request_id: str = "r"

    def __lt__(self, other: Asked) -> bool:
        return self.priority < other.priority


@dataclass(frozen=True)
class Decided:
    """As much of vLLM's decision as matters here."""

    total_num_scheduled_tokens: int


@dataclass
class Clock:
    """Time that stands still but for the steps."""

    now: float = 100.0
    seen: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def __call__(self) -> float:
        return self.now


def scheduler(clock: Clock, running: list[int], waiting: list[int]) -> Any:
    """A scheduler in the middle of its work. A step notes how many of the running ones are in it,
    and how many may be let in.
    """
    from vllm.v1.core.sched.request_queue import SchedulingPolicy, create_request_queue

    from adapters.vllm_plugin.polite import PoliteScheduler, Rest

    made: Any = PoliteScheduler.__new__(PoliteScheduler)
    made.running = [Asked(priority) for priority in running]
    made.policy = SchedulingPolicy.PRIORITY
    made.waiting = create_request_queue(made.policy)
    for priority in waiting:
        made.waiting.add_request(cast(Any, Asked(priority)))
    made.max_num_running_reqs, made.current_step = 8, 0
    made.kv_cache_manager = SimpleNamespace(usage=0.5)
    made.rest = Rest(0.1, clock)
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Also the place of vLLM's own decisions: everybody who may is in the step."""
    from vllm.v1.core.sched.scheduler import Scheduler

    clock = Clock()

    def schedule(self: Any) -> Decided:
        self.current_step += 1
        going_on = [r for r in self.running if self.current_step >= r.next_decode_eligible_step]
        clock.seen.append((len(going_on), len(self.waiting)))
        return Decided(len(going_on))

    monkeypatch.setattr(Scheduler, "schedule", schedule)
    monkeypatch.setattr(Scheduler, "update_from_output", lambda self: "taken in")
    return clock


def steps(made: Any, clock: Clock, number: int) -> list[tuple[int, int]]:
    clock.seen.clear()
    for _ in range(number):
        assert made.schedule() == Decided(clock.seen[-1][0])
        clock.now += STEP_S
        assert made.update_from_output() == "taken in"
    return clock.seen


def test_without_users_the_background_goes_on(clock: Clock):
    made = scheduler(clock, [BACKGROUND] * 3, [BACKGROUND])
    assert steps(made, clock, 3) == [(3, 1)] * 3


def test_beside_a_user_the_background_gets_its_share(clock: Clock):
    made = scheduler(clock, [USER, *[BACKGROUND] * 3], [BACKGROUND] * 2)
    alone, shared = (1, 0), (4, 2)
    assert steps(made, clock, 21) == [shared, *[alone] * 9, shared, *[alone] * 9, shared]
    assert len(made.waiting) == 2


def test_users_alone_use_up_no_share(clock: Clock):
    made = scheduler(clock, [USER, USER], [])
    assert steps(made, clock, 5) == [(2, 0)] * 5
    made.running.append(Asked(BACKGROUND))
    assert steps(made, clock, 2) == [(3, 0), (2, 0)]


def test_a_user_who_can_be_let_in_counts_and_one_without_room_does_not(clock: Clock):
    made = scheduler(clock, [BACKGROUND] * 3, [USER, BACKGROUND])
    assert steps(made, clock, 2) == [(3, 2), (0, 2)]
    full = scheduler(clock, [BACKGROUND] * 8, [USER])
    assert steps(full, clock, 3) == [(8, 1)] * 3


def test_nobody_rests_while_a_user_waits_for_room_in_the_cache(clock: Clock):
    made = scheduler(clock, [BACKGROUND] * 3, [USER])
    assert steps(made, clock, 6) == [(3, 1), (0, 1)] * 3  # one empty step shows that there is none


def test_nobody_rests_when_the_cache_is_nearly_full(clock: Clock):
    made = scheduler(clock, [USER, BACKGROUND], [])
    made.kv_cache_manager.usage = 0.95
    assert steps(made, clock, 3) == [(2, 0)] * 3


def test_what_is_preempted_meanwhile_waits_with_the_others(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    from vllm.v1.core.sched.scheduler import Scheduler

    made = scheduler(clock, [USER, BACKGROUND], [BACKGROUND])
    steps(made, clock, 1)

    def schedule(self: Any) -> Decided:
        self.waiting.prepend_request(self.running.pop())
        return Decided(1)

    monkeypatch.setattr(Scheduler, "schedule", schedule)
    made.schedule()
    assert (len(made.running), len(made.waiting)) == (1, 2)
    assert made.waiting.peek_request().priority == BACKGROUND
