from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.gateway.fair_queue import FairQueue, Refused, Share, Ticket

SHARES = {1: Share(), 2: Share(2.0), 3: Share(0.5), 4: Share(1.0, seats=2)}


class Door(RuleBasedStateMachine):
    """Tenants come and go in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue(6, 5)
        self.tickets: list[Ticket] = []
        self.turns: list[Ticket] = []

    @rule(tenant=st.sampled_from(sorted(SHARES)), cost=st.integers(1, 9))
    def comes(self, tenant: int, cost: int) -> None:
        longest = max(map(self.length, self.queue._queued), default=0.0)
        foreseen = self.queue.refusal(tenant, SHARES[tenant])
        try:
            ticket = self.queue.enter(tenant, SHARES[tenant], cost)
        except Refused:
            assert self.queue.waiting == 5
            assert self.length(tenant) + 1 / SHARES[tenant].weight >= longest
            return
        assert foreseen is None
        self.tickets.append(ticket)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def goes(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        self.queue.leave(ticket)
        self.queue.leave(ticket)

    def length(self, tenant: int) -> float:
        waiting = sum(
            ticket.state == "waiting" and ticket.lane.tenant_id == tenant for ticket in self.tickets
        )
        return waiting / SHARES[tenant].weight

    @invariant()
    def counts_agree(self) -> None:
        self.tickets = [t for t in self.tickets if t.state in ("waiting", "seated")]
        seated = [t for t in self.tickets if t.state == "seated"]
        assert self.queue.in_use == sum(t.cost for t in seated) <= 6
        assert self.queue.waiting == len(self.tickets) - len(seated) <= 5
        held = Counter[int]()
        for ticket in seated:
            held[ticket.lane.tenant_id] += ticket.cost
        assert held[4] <= 2
        assert all(lane.held == held[at] for at, lane in self.queue._lanes.items())
        assert set(held) <= set(self.queue._lanes)

    @invariant()
    def no_seat_is_empty_that_somebody_could_have(self) -> None:
        free = 6 - self.queue.in_use
        heads = [lane.waiting[0] for lane in self.queue._queued.values() if not lane.is_at_limit]
        assert (
            not heads
            or min(head.cost for head in heads) > free
            or max(head.cost for head in heads) > free
        )

    @invariant()
    def an_empty_room_remembers_nothing(self) -> None:
        assert self.tickets or not self.queue._lanes


TestDoor = Door.TestCase
TestDoor.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)


@dataclass
class Saturated:
    """Tenants that always want more, and get seats for a fixed number of turns each."""

    shares: dict[int, Share]
    lasts: dict[int, int]
    seats: int

    def served(self, turns: int) -> tuple[Counter[int], Counter[int]]:
        """Requests begun, and seats held summed over time, by tenant."""
        wanted = 2 * self.seats
        queue = FairQueue(self.seats, wanted * len(self.shares))
        running: list[tuple[int, Ticket]] = []
        waiting: list[Ticket] = []
        begun, held = Counter[int](), Counter[int]()
        for now in range(turns):
            for ticket in [t for ends, t in running if ends <= now]:
                queue.leave(ticket)
            running = [(ends, t) for ends, t in running if ends > now]
            for tenant, share in self.shares.items():
                while (
                    sum(t.lane.tenant_id == tenant and t.state == "waiting" for t in waiting)
                    < wanted
                ):
                    waiting.append(queue.enter(tenant, share))
            for ticket in [t for t in waiting if t.state == "seated"]:
                waiting.remove(ticket)
                tenant = ticket.lane.tenant_id
                begun[tenant] += 1
                running.append((now + self.lasts[tenant], ticket))
            for _, ticket in running:
                held[ticket.lane.tenant_id] += 1
        return begun, held


def test_seats_are_shared_by_weight() -> None:
    _, held = Saturated({1: Share(), 2: Share(3.0)}, {1: 2, 2: 2}, seats=8).served(200)
    assert 2.5 < held[2] / held[1] < 3.5


def test_long_requests_get_no_more_seats_than_short_ones() -> None:
    begun, held = Saturated({1: Share(), 2: Share()}, {1: 1, 2: 10}, seats=8).served(400)
    assert 0.8 < held[1] / held[2] < 1.25
    assert begun[1] > 5 * begun[2]


def test_one_seat_is_shared_by_weight_too() -> None:
    begun, _ = Saturated({1: Share(), 2: Share(2.0)}, {1: 1, 2: 1}, seats=1).served(300)
    assert 1.8 < begun[2] / begun[1] < 2.2


@settings(deadline=None, max_examples=25)
@given(
    weights=st.lists(st.floats(0.1, 10), min_size=2, max_size=6),
    seats=st.integers(1, 8),
)
def test_nobody_starves(weights: list[float], seats: int) -> None:
    shares = {at: Share(weight) for at, weight in enumerate(weights)}
    begun, _ = Saturated(shares, dict.fromkeys(shares, 1), seats).served(150)
    assert all(begun[at] for at in shares)


def test_a_tenant_that_floods_does_not_delay_a_quiet_one() -> None:
    queue = FairQueue(4, 10)
    flood = [queue.enter(1, Share()) for _ in range(14)]
    quiet = queue.enter(2, Share())
    assert quiet.state == "waiting"
    assert flood[-1].state == "displaced"
    queue.leave(flood[0])
    assert quiet.state == "seated"


def test_a_flood_refuses_only_itself() -> None:
    queue = FairQueue(1, 2)
    for _ in range(3):
        queue.enter(1, Share())
    assert queue.refusal(1, Share()) == "full"
    assert queue.refusal(2, Share()) is None
    with pytest.raises(Refused, match="full"):
        queue.enter(1, Share())


def test_who_is_at_the_own_limit_is_told_so_and_holds_nobody_up() -> None:
    queue, one = FairQueue(4, 1), Share(seats=1)
    queue.enter(1, one)
    waits = queue.enter(1, one)
    with pytest.raises(Refused, match="own"):
        queue.enter(1, one)
    assert queue.refusal(1, one) == "own"
    assert waits.state == "waiting"
    assert queue.enter(2, Share()).state == "seated"


def test_a_large_request_is_not_passed_by_small_ones_for_ever() -> None:
    queue = FairQueue(8, 8)
    small = [queue.enter(1, Share()) for _ in range(8)]
    large = queue.enter(2, Share(), 2)
    after = queue.enter(1, Share())
    queue.leave(small[0])
    assert (large.state, after.state) == ("waiting", "waiting")
    queue.leave(small[1])
    assert (large.state, after.state) == ("seated", "waiting")


def test_a_request_for_more_than_there_is_gets_a_quarter() -> None:
    assert FairQueue(8, 8).enter(1, Share(), 64).cost == 2


def test_who_leaves_the_queue_makes_room() -> None:
    queue = FairQueue(1, 1)
    queue.enter(1, Share())
    queue.leave(queue.enter(1, Share()))
    assert queue.waiting == 0
    assert queue.enter(1, Share()).state == "waiting"


def test_the_next_in_turn_is_told() -> None:
    queue, told = FairQueue(1, 2), list[str]()
    first, second = queue.enter(1, Share()), queue.enter(1, Share())
    second.on_turn = lambda: told.append(second.state)
    queue.leave(first)
    assert told == ["seated"]
