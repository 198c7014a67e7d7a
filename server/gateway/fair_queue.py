"""Who gets the next free seat: seats are what an engine has for answers in the making.

A seat goes to the waiting tenant that holds the fewest for its weight (max-min fairness), and among
equals to the one whose virtual start time is the least: start-time fair queueing (Goyal, Vin, Cheng
1996, equations 4 and 5), which alone decides where there is one seat. Seats rather than requests,
because who asks for long answers holds a seat for longer. Whose turn it is waits until its request
fits, and nobody goes past it, so that large requests are not starved by small ones.

Few may wait. Where the queue is full, a newcomer takes the place of the newest one of whoever has
the most waiting for its weight, unless that is itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

MAX_IDLE_LANES: Final = 1024  # remembered for their virtual time, until they are cleared away

Refusal = Literal["own", "full"]
"""own: the tenant holds all seats that its limit allows; full: there are none for anybody."""


class Refused(Exception):
    """There is no seat, and no place to wait for one."""

    def __init__(self, why: Refusal) -> None:
        super().__init__(why)
        self.why: Refusal = why


@dataclass(frozen=True, slots=True)
class Share:
    """What a tenant may hold: at most `seats` (None: all), and `weight` in relation to others."""

    weight: float = 1.0
    seats: int | None = None


@dataclass(eq=False, slots=True)
class Ticket:
    """A request's place. `on_turn` is called when it stops waiting: seated, or displaced."""

    lane: Lane
    cost: int
    state: Literal["new", "waiting", "seated", "displaced", "left"] = "new"
    on_turn: Callable[[], None] | None = None


@dataclass(eq=False, slots=True)
class Lane:
    """A tenant's requests."""

    tenant_id: int
    share: Share
    held: int = 0
    finish: float = 0.0  # virtual time
    waiting: deque[Ticket] = field(default_factory=deque[Ticket])

    @property
    def is_idle(self) -> bool:
        return not self.held and not self.waiting

    @property
    def is_at_limit(self) -> bool:
        """Whether its first one waits because of its own limit."""
        return self.exceeds_limit(self.waiting[0].cost)

    def exceeds_limit(self, cost: int) -> bool:
        """Whether so many seats more are over its own limit."""
        return self.share.seats is not None and self.held + cost > self.share.seats


class FairQueue:
    """Seats, and those who wait for them. No I/O, no clock."""

    def __init__(self, seats: int, max_waiting: int) -> None:
        self.seats = seats
        self.in_use = 0
        self.waiting = 0
        self._max_waiting = max_waiting
        self._largest = max(1, seats // 4)  # what one request counts at most
        self._now = 0.0  # virtual: the start of the last that was seated
        self._lanes: dict[int, Lane] = {}
        self._queued: dict[int, Lane] = {}  # those with somebody waiting

    def refusal(self, tenant_id: int, share: Share) -> Refusal | None:
        """Why a request that comes now would surely be refused; None: perhaps it would not."""
        if self.waiting < self._max_waiting:
            return None
        lane = self._lanes.get(tenant_id)
        if lane is None:
            lane = Lane(tenant_id, share)
        if not lane.waiting and self.in_use < self.seats and not lane.exceeds_limit(1):
            return None
        if self._longest_but(lane) is not None:
            return None
        return "own" if lane.exceeds_limit(1) else "full"

    def enter(self, tenant_id: int, share: Share, cost: int = 1) -> Ticket:
        """A ticket, seated or waiting. Its owner calls `leave` in the end, whatever became of it.

        Raises:
            Refused: there is no place to wait.
        """
        lane = self._lanes.get(tenant_id)
        if lane is None:
            lane = self._lanes[tenant_id] = Lane(tenant_id, share)
        lane.share = share
        most = self._largest if share.seats is None else min(self._largest, share.seats)
        ticket = Ticket(lane, min(max(1, cost), most))
        if not self._queued and self._fits(ticket):
            self._seat(ticket)
            return ticket
        self._append(ticket)
        self._give_turns()
        if ticket.state == "waiting" and self.waiting > self._max_waiting:
            self._make_room(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give back the seat, or stop waiting for one. Once more does nothing."""
        lane, state = ticket.lane, ticket.state
        if state not in ("waiting", "seated"):
            return
        ticket.state = "left"
        if state == "seated":
            lane.held -= ticket.cost
            self.in_use -= ticket.cost
        else:
            self._remove(ticket)
        self._give_turns()
        self._forget(lane)

    def _fits(self, ticket: Ticket) -> bool:
        return self.in_use + ticket.cost <= self.seats and not ticket.lane.exceeds_limit(
            ticket.cost
        )

    def _append(self, ticket: Ticket) -> None:
        ticket.state = "waiting"
        ticket.lane.waiting.append(ticket)
        self._queued[ticket.lane.tenant_id] = ticket.lane
        self.waiting += 1

    def _remove(self, ticket: Ticket) -> None:
        lane = ticket.lane
        lane.waiting.remove(ticket)
        self.waiting -= 1
        if not lane.waiting:
            del self._queued[lane.tenant_id]

    def _seat(self, ticket: Ticket) -> None:
        lane = ticket.lane
        self._now = max(self._now, lane.finish)
        lane.finish = self._now + ticket.cost / lane.share.weight
        lane.held += ticket.cost
        self.in_use += ticket.cost
        ticket.state = "seated"

    def _give_turns(self) -> None:
        while self._queued and self.in_use < self.seats:
            may = [lane for lane in self._queued.values() if not lane.is_at_limit]
            if not may:
                return
            ticket = min(may, key=self._turn).waiting[0]
            if not self._fits(ticket):
                return
            self._remove(ticket)
            self._seat(ticket)
            if ticket.on_turn is not None:
                ticket.on_turn()

    def _turn(self, lane: Lane) -> tuple[float, float]:
        return lane.held / lane.share.weight, max(self._now, lane.finish)

    def _make_room(self, newcomer: Ticket) -> None:
        longest = self._longest_but(newcomer.lane, already_in=1)
        if longest is None:
            lane = newcomer.lane
            self._remove(newcomer)
            newcomer.state = "left"
            why: Refusal = "own" if lane.exceeds_limit(newcomer.cost) else "full"
            self._give_turns()  # it may have been the one that all others waited for
            self._forget(lane)
            raise Refused(why)
        victim = longest.waiting[-1]
        self._remove(victim)
        victim.state = "displaced"
        if victim.on_turn is not None:
            victim.on_turn()
        self._give_turns()

    def _longest_but(self, lane: Lane, already_in: int = 0) -> Lane | None:
        """Who has more waiting for its weight than `lane` will have with one more."""
        will_have = (len(lane.waiting) + 1 - already_in) / lane.share.weight
        longest = max(self._queued.values(), key=_length, default=None)
        if longest is None or longest is lane or _length(longest) <= will_have:
            return None
        return longest

    def _forget(self, lane: Lane) -> None:
        """Drop what nobody needs to know any more."""
        if self.in_use == 0 and self.waiting == 0:
            self._lanes.clear()
            self._now = 0.0
        elif lane.is_idle and lane.finish <= self._now:
            self._lanes.pop(lane.tenant_id, None)
        elif len(self._lanes) > self.in_use + self.waiting + MAX_IDLE_LANES:
            self._lanes = {at: some for at, some in self._lanes.items() if not some.is_idle}


def _length(lane: Lane) -> float:
    return len(lane.waiting) / lane.share.weight
