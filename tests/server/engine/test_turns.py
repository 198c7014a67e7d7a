"""Adapters take turns on an engine's slots, and nobody is passed over for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.turns import Turns


@dataclass
class Queue:
    """Requests that take their turns, and the order in which they got them."""

    turns: Turns
    order: list[str] = field(default_factory=list[str])
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    async def ask(self, adapter: str, tenant: str = "") -> asyncio.Task[None]:
        """Ask for a turn; returns when it was got, or is waited for."""

        async def take() -> None:
            await self.turns.take(adapter, tenant or adapter)
            self.order.append(adapter)

        self.tasks.append(asyncio.create_task(take()))
        await settle()
        return self.tasks[-1]

    async def end(self, adapter: str) -> None:
        """One request is over."""
        self.turns.give_back(adapter)
        await settle()


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def queue() -> Queue:
    return Queue(Turns(2, turn_s=0))


async def test_as_many_adapters_as_slots_run_at_once(queue: Queue) -> None:
    for adapter in ("a", "b", "c", "a", "d"):
        await queue.ask(adapter)
    assert queue.order == ["a", "b"]
    assert [queue.turns.is_used(name) for name in "abc"] == [True, True, False]
    assert queue.turns.num_waiting == 3


async def test_requests_for_an_adapter_share_its_slot(queue: Queue) -> None:
    for _ in range(50):
        await queue.ask("a")
    assert queue.order == ["a"] * 50


async def test_a_cold_adapter_gets_its_turn_although_others_never_stop(queue: Queue) -> None:
    await queue.ask("a")
    await queue.ask("b")
    await queue.ask("cold")
    for _ in range(3):  # the next request for each comes before the last one ends
        await queue.ask("a")
        await queue.ask("b")
    assert "cold" not in queue.order
    await queue.end("a")  # its turn was over, so what came for it waits
    assert queue.order[-1] == "cold"


async def test_waiting_adapters_come_in_the_order_of_their_arrival(queue: Queue) -> None:
    for adapter in ("a", "b", "c", "d", "c", "e"):
        await queue.ask(adapter)
    for adapter in ("a", "b", "c", "c"):
        await queue.end(adapter)
    assert queue.order == ["a", "b", "c", "c", "d", "e"]


async def test_a_turn_is_not_over_at_once() -> None:
    queue = Queue(Turns(1, turn_s=3600))
    for adapter in ("a", "b", "a", "a"):
        await queue.ask(adapter)
    assert queue.order == ["a", "a", "a"]
    for _ in range(3):
        await queue.end("a")
    assert queue.order[-1] == "b"


async def test_a_turn_ends_by_the_clock() -> None:
    queue = Queue(Turns(1, turn_s=0.01))
    await queue.ask("a")
    waiting = await queue.ask("b")
    async with asyncio.timeout(20):
        while queue.turns.num_waiting < 2:
            if (await queue.ask("a")).done():
                await queue.end("a")
    await queue.end("a")
    assert waiting.done()


async def test_versions_of_one_tenant_may_overlap_once(queue: Queue) -> None:
    await queue.ask("a--v1", "a")
    await queue.ask("b--v1", "b")
    await queue.ask("a--v2", "a")
    assert queue.order[-1] == "a--v2"
    await queue.ask("b--v2", "b")  # the spare slot is taken
    assert queue.turns.num_waiting == 1
    await queue.end("a--v1")
    assert queue.turns.num_waiting == 1
    await queue.end("b--v1")
    assert queue.order[-1] == "b--v2"


async def test_one_who_leaves_while_waiting_is_not_given_a_slot(queue: Queue) -> None:
    for adapter in ("a", "b", "c"):
        await queue.ask(adapter)
    queue.tasks[-1].cancel()
    await settle()
    assert queue.turns.num_waiting == 0
    await queue.ask("b")  # nobody waits any more, so it may go on
    assert queue.order == ["a", "b", "b"]


async def test_one_who_leaves_as_the_turn_comes_gives_it_back(queue: Queue) -> None:
    for adapter in ("a", "b", "c", "d"):
        await queue.ask(adapter)
    queue.turns.give_back("a")  # c has its turn, but does not know it yet
    queue.tasks[2].cancel()
    await settle()
    assert queue.order == ["a", "b", "d"]
    assert not queue.turns.is_used("c")


async def test_an_adapter_stays_when_the_others_have_found_room_elsewhere(queue: Queue) -> None:
    for adapter in ("a", "b", "c", "a"):  # a is to leave for c, and so is b for a's next one
        await queue.ask(adapter)
    await queue.end("b")
    assert queue.order == ["a", "b", "c", "a"]  # although a's first request goes on
    await queue.end("c")
    await queue.ask("d")
    assert queue.order[-1] == "d"
    assert queue.turns.num_waiting == 0


async def test_an_adapter_stays_when_the_one_that_waited_has_left(queue: Queue) -> None:
    for adapter in ("a", "b", "c", "a"):
        await queue.ask(adapter)
    queue.tasks[2].cancel()
    await settle()
    assert queue.order == ["a", "b", "a"]


ADAPTERS = "abcdef"
MOVES = st.lists(st.tuples(st.sampled_from(["ask", "ask", "end", "cancel"]), st.integers(0, 30)))


@given(moves=MOVES, num_slots=st.integers(1, 3))
def test_no_slot_is_free_while_somebody_waits_and_everybody_gets_in(
    moves: list[tuple[str, int]], num_slots: int
) -> None:
    asyncio.run(play(moves, num_slots))


async def play(moves: list[tuple[str, int]], num_slots: int) -> None:
    """Requests come, end and leave in any order; then all that run end, again and again, each
    followed by another one of its adapter.
    """
    crowd = Crowd(num_slots)
    for move, number in moves:
        await crowd.move(move, number)
        crowd.check()
    patient = list(crowd.waiting)
    for _ in ADAPTERS:
        for name, task in list(crowd.running):
            await crowd.ask(name)
            await crowd.end(name, task)
            crowd.check()
    assert not [name for name, task in patient if not task.done()]
    while crowd.running:
        await crowd.end(*crowd.running[0])
    assert not crowd.waiting


class Crowd:
    """Requests for adapters, by whether they wait or run."""

    def __init__(self, num_slots: int) -> None:
        self.queue = Queue(Turns(num_slots, turn_s=0))
        self.num_slots = num_slots
        self.present: list[tuple[str, asyncio.Task[None]]] = []

    @property
    def waiting(self) -> list[tuple[str, asyncio.Task[None]]]:
        return [one for one in self.present if not one[1].done()]

    @property
    def running(self) -> list[tuple[str, asyncio.Task[None]]]:
        return [one for one in self.present if one[1].done()]

    async def ask(self, adapter: str) -> None:
        self.present.append((adapter, await self.queue.ask(adapter)))

    async def end(self, adapter: str, task: asyncio.Task[None]) -> None:
        self.present.remove((adapter, task))
        await self.queue.end(adapter)

    async def move(self, move: str, number: int) -> None:
        if move == "ask":
            await self.ask(ADAPTERS[number % len(ADAPTERS)])
        elif move == "end" and self.running:
            await self.end(*self.running[number % len(self.running)])
        elif move == "cancel" and self.waiting:
            gone = self.waiting[number % len(self.waiting)]
            self.present.remove(gone)
            gone[1].cancel()
            await settle()

    def check(self) -> None:
        used = {name for name in ADAPTERS if self.queue.turns.is_used(name)}
        assert used == {name for name, _ in self.running}
        assert self.queue.turns.num_waiting == len(self.waiting)
        if {name for name, _ in self.waiting} - used:
            assert len(used) == self.num_slots
        else:
            assert not self.waiting
