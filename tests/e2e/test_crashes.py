"""`kill -9` of each process in the middle of a cycle, while users go on asking.

Whatever dies: nobody gets a wrong answer or an error that is not announced, no answer that arrived
is missing from the log, and the cycle goes on from its last step, no prompt learned from twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from ttrl_client.types import CycleStatus

from tests.e2e.checks import check_log, check_nothing_noticed, check_only_told_away, check_steps
from tests.e2e.learner import Learner
from tests.e2e.live import START_TIMEOUT_S, LiveServer, Role
from tests.e2e.processes import Process
from tests.e2e.traffic import Reply, User

pytestmark = pytest.mark.engine

TREE_TIMEOUT_S = 30.0  # the guards' grace is 10 s
LONG = {"max_tokens": 900, "ignore_eos": True}  # a stream that lasts for seconds
GREEDY = {"temperature": 0, "store": False}


@pytest.fixture(scope="module")
def learner(live: LiveServer) -> Learner:
    """The tenant that all tests here share, one cycle after the other."""
    return Learner.on(live, "crasher")


@pytest.fixture
def promoted(learner: Learner) -> Learner:
    """The same tenant, some version of its own being live."""
    if not learner.live_version:
        cycle = learner.final(learner.live.admin.trigger_cycle(learner.name, seed=3))
        assert cycle.status == CycleStatus.PROMOTED, cycle
        learner.wait_served_by(learner.label)
    return learner


@pytest.mark.parametrize(("role", "attempts"), [("worker", 2), ("trainer", 1)])
def test_killed_worker_and_trainer(learner: Learner, role: Role, attempts: int) -> None:
    live = learner.live
    with learner.traffic(seed=attempts) as asked:
        cycle = learner.cycle_with_steps(2)
        trainer = live.process("trainer")
        victim = live.kill(role)
        ended = learner.final(cycle)
    assert (ended.status, ended.attempts) == (CycleStatus.PROMOTED, attempts), ended
    check_steps(live, ended)
    assert live.process(role).pid != victim.pid
    assert not trainer.is_alive, "it outlived its worker"
    check_nothing_noticed(asked.replies)
    check_log(learner, asked.replies)
    learner.wait_served_by(learner.label_of(ended.candidate_version))


@pytest.mark.parametrize("role", ["vllm", "engine_core"])
def test_killed_engine(promoted: Learner, role: Role) -> None:
    live, label, engine_name = promoted.live, promoted.label, promoted.engine_name
    answer = promoted.ask("What is 2718+3141?", **GREEDY)
    with promoted.traffic(seed=3) as asked:
        cycle = promoted.cycle_with_steps(1)
        cut = kill_under_a_stream(promoted, role)
        killed_at = time.monotonic()
        live.wait_for(lambda: live.engine.state != "ready", "the outage to be seen", 30)
        live.wait_ready()
        assert engine_name in live.adapters()
        live.wait_for(lambda: asked.served_since(killed_at), "an answer", 60)
        back = next(r for r in asked.replies if r.is_whole and r.started > killed_at)
        ended = promoted.final(cycle)
    assert back.adapter == label
    assert (cut.is_whole, cut.is_told_away, cut.adapter) == (False, True, label)
    assert ended.status == CycleStatus.PROMOTED, ended
    check_steps(live, ended)
    check_only_told_away(asked.replies)
    check_log(promoted, asked.replies, cut=[cut])
    again = promoted.ask("What is 2718+3141?", model=f"ttrl@{label.rpartition('--')[2]}", **GREEDY)
    assert (again.adapter, again.text) == (label, answer.text)


def test_killed_web_process(promoted: Learner) -> None:
    live, label = promoted.live, promoted.label
    with promoted.traffic(seed=4) as asked:
        cycle = promoted.cycle_with_steps(1)
        tree = live.tree()
        live.kill("web")
        killed_at = time.monotonic()
        wait_until_gone(tree, TREE_TIMEOUT_S)
    live.start(START_TIMEOUT_S)
    assert promoted.ask("What is 2718+3141?").adapter == label
    check_log(promoted, asked.replies)
    ended = promoted.final(cycle)
    assert ended.status == CycleStatus.PROMOTED, ended
    check_steps(live, ended)
    check_nothing_noticed([r for r in asked.replies if r.started < killed_at and not r.broken])
    promoted.wait_served_by(promoted.label_of(ended.candidate_version))


def kill_under_a_stream(learner: Learner, role: Role) -> Reply:
    """Kill it while a long stream is under way; what came of the stream."""
    user = User(learner.live.base_url, learner.key)
    with user.streaming("What is 1+1?", **LONG) as (reply, rest):
        learner.live.kill(role)
        for event in rest:
            reply.take(event)
    user.close()
    return reply.made()


def wait_until_gone(tree: Sequence[Process], timeout_s: float) -> None:
    """Wait until none of the processes is left."""
    deadline = time.monotonic() + timeout_s
    while left := [process for process in tree if process.is_alive]:
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.05)
