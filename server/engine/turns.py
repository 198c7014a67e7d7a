"""Fair turns on an engine's LoRA slots.

vLLM runs as many adapters at once as it has slots. A request for another one waits until a slot
falls free, and under steady traffic to the others none ever does: it keeps passing the waiting one
over. So no more adapters are sent to an engine at once than it has room for, and one that others
wait for gives its slot up when its turn is over: its next requests queue up behind them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic

TURN_S = 0.5
"""Others wait at least so long for the slot of an adapter that is asked for all the time."""


@dataclass(slots=True)
class _Holder:
    """An adapter in a slot."""

    tenant: str  # of the first request
    since: float  # monotonic seconds
    num_requests: int = 0
    is_leaving: bool = False  # takes no more requests: others wait for the slot


class Turns:
    """Who may use an engine's slots now.

    There is one slot more than `num_slots`, for a tenant whose versions overlap in a swap. Times
    are in seconds; `clock` is the event loop's kind of clock.
    """

    def __init__(
        self, num_slots: int, *, turn_s: float = TURN_S, clock: Callable[[], float] = monotonic
    ) -> None:
        self._num_slots = num_slots
        self._turn_s = turn_s
        self._clock = clock
        self._holders: dict[str, _Holder] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by adapter, longest first
        self._tenants: dict[str, str] = {}  # of the adapters that wait
        self._timer: asyncio.TimerHandle | None = None

    def is_used(self, adapter: str) -> bool:
        """Whether a request holds the adapter's slot."""
        return adapter in self._holders

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a slot."""
        return sum(len(futures) for futures in self._waiting.values())

    async def take(self, adapter: str, tenant: str) -> None:
        """Wait for the adapter's turn; each `take` that returns needs a `give_back`."""
        holder = self._holders.get(adapter)
        if holder is not None and not holder.is_leaving:
            holder.num_requests += 1
        elif holder is None and self._may_enter(tenant):
            self._holders[adapter] = _Holder(tenant, self._clock(), num_requests=1)
        else:
            await self._wait(adapter, tenant)

    def give_back(self, adapter: str) -> None:
        """The request is over, or goes elsewhere."""
        holder = self._holders[adapter]
        holder.num_requests -= 1
        if not holder.num_requests:
            del self._holders[adapter]
            self._admit()

    def _may_enter(self, tenant: str) -> bool:
        if len(self._holders) < self._num_slots:
            return not self._outside()
        if len(self._holders) > self._num_slots:
            return False
        return any(holder.tenant == tenant for holder in self._holders.values())

    def _outside(self) -> list[str]:
        """The adapters that wait and hold no slot, longest first; a leaving one may do both."""
        return [name for name in self._waiting if name not in self._holders]

    async def _wait(self, adapter: str, tenant: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(adapter, deque()).append(turn)
        self._tenants[adapter] = tenant
        self._end_turns()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(adapter)  # it came at the same moment
            else:
                self._leave(adapter, turn)
            raise

    def _leave(self, adapter: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(adapter)
        if queue is None or turn not in queue:
            return
        queue.remove(turn)
        if not queue:
            del self._waiting[adapter], self._tenants[adapter]
            self._admit()

    def _admit(self) -> None:
        """Give free slots to those that wait; once all have one, nobody has to leave."""
        for adapter in self._outside():
            if len(self._holders) >= self._num_slots:
                break
            self._let_in(adapter)
        if not self._outside():
            for holder in self._holders.values():
                holder.is_leaving = False
            for adapter in list(self._waiting):
                self._let_in(adapter)
        self._end_turns()

    def _let_in(self, adapter: str) -> None:
        """All requests of an adapter together."""
        queue, tenant = self._waiting.pop(adapter), self._tenants.pop(adapter)
        turns = [turn for turn in queue if not turn.done()]
        if turns:
            holder = self._holders.setdefault(adapter, _Holder(tenant, self._clock()))
            holder.num_requests += len(turns)
        for turn in turns:
            turn.set_result(None)

    def _end_turns(self) -> None:
        """Let as many adapters leave as others wait, those whose turn is over, longest first."""
        now = self._clock()
        for holder in self._to_leave():
            if now < holder.since + self._turn_s:
                self._look_again(holder.since + self._turn_s - now)
                return
            holder.is_leaving = True

    def _to_leave(self) -> Iterator[_Holder]:
        staying = [holder for holder in self._holders.values() if not holder.is_leaving]
        num_leaving = len(self._holders) - len(staying)
        excess = len(self._waiting) - num_leaving
        yield from sorted(staying, key=lambda holder: holder.since)[: max(excess, 0)]

    def _look_again(self, after_s: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(after_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._end_turns()
