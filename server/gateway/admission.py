"""Who is let in: a tenant's own limits first, then a fair share of the server's seats.

A request arrives (its rate is counted), its body is read without a seat, and then it takes seats,
waiting for them for a short while where the server is full or the tenant has all that it may have.
A client that leaves meanwhile leaves the queue. All of it is memory of one process: several web
processes each enforce their share (`TTRL_WEB_PROCESSES`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Final

from starlette.types import Receive
from ttrl_client.types import Limits

from server.config import Settings
from server.errors import Overloaded, ServerFull, TTRLError
from server.gateway.client_side import watched
from server.gateway.fair_queue import FairQueue, Refused, Share, Ticket
from server.gateway.quota import Quota, Quotas
from server.gateway.turns import Turns
from server.held import Held
from server.tenants import Caller

RETRY_S: Final = 1  # seats come free all the time
BODIES: Final = 1024  # that are read at a time; a slow one holds no seat
BODIES_OF_TENANT: Final = 256


class Admission:
    """The door of the data plane. `now` is a monotonic clock in seconds."""

    def __init__(self, settings: Settings, now: Callable[[], float] = monotonic) -> None:
        processes = settings.web_processes
        seats = math.ceil(settings.max_in_flight / processes)
        waiting = seats // 2 if settings.queue_size is None else settings.queue_size // processes
        self.queue = FairQueue(seats, waiting)
        self.bodies = Turns(BODIES, BODIES_OF_TENANT)
        self.wait_s = settings.queue_wait_s
        self.now = now
        self.arrived = asyncio.Event()  # somebody did, since this was last cleared
        self._processes = processes
        self._quotas = Quotas(processes)

    def arrive(self, caller: Caller) -> Visit:
        """Let a request in as far as its body; errors in the block tell what is left to the tenant.

        Raises:
            Overloaded: it is over one of the tenant's limits.
            ServerFull: there is no seat, and no place to wait for one.
        """
        self.arrived.set()
        quota = self._quotas.of(caller.tenant_id, caller.limits, self.now())
        return Visit(self, caller, quota)

    def is_serving(self) -> bool:
        """Whether anybody has a seat or waits for one."""
        return self.queue.in_use > 0 or self.queue.waiting > 0

    def share(self, limits: Limits) -> Share:
        """What a tenant may hold of this process's seats."""
        if limits.concurrency is None:
            return Share(limits.weight)
        return Share(limits.weight, math.ceil(limits.concurrency / self._processes))


class Visit:
    """One request that arrived, for the length of a block."""

    __slots__ = ("_admission", "_estimate", "_has_counted", "_quota", "_share", "_tenant_id")

    def __init__(self, admission: Admission, caller: Caller, quota: Quota | None) -> None:
        self._admission = admission
        self._quota = quota
        self._share = admission.share(caller.limits)
        self._tenant_id = caller.tenant_id
        self._has_counted = False
        self._estimate: int | None = None  # of tokens, once they are taken

    def __enter__(self) -> Visit:
        try:
            self._check()
        except TTRLError as error:
            self._refused(error)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, TTRLError):
            self._refused(error)

    def _check(self) -> None:
        """Refuse at once what would be refused later, before its body is read.

        Raises:
            Overloaded, ServerFull: as `Admission.arrive`.
        """
        why = self._admission.queue.refusal(self._tenant_id, self._share)
        if why is not None:
            raise _refusal(why == "own")
        if self._quota is not None:
            self._quota.take_request(self._admission.now())
            self._has_counted = True

    def _refused(self, error: TTRLError) -> None:
        """Nothing was generated, so no tokens are counted; a request is where it was let in."""
        self.settle(0)
        if self._quota is None:
            return
        if isinstance(error, ServerFull) and self._has_counted:
            self._quota.give_back_request(self._admission.now())
        error.told_headers = self._quota.headers(self._admission.now())

    def body(self) -> Held:
        """Where a body may be read.

        Raises:
            Overloaded, ServerFull: too many are being read.
        """
        return self._admission.bodies.take(self._tenant_id)

    def seat(self, receive: Receive, answers: int = 1, tokens: int = 0) -> Seat:
        """Hold seats for so many answers during the block. `tokens` is what it may come to.

        Raises:
            Overloaded, ServerFull: there was none in time, or the tokens are used up.
            ClientLeft: the client left while it waited.
        """
        return Seat(self, receive, answers, tokens)

    def enter(self, answers: int, tokens: int) -> Ticket:
        """A place in the queue. Errors as `seat`."""
        if self._quota is not None:
            self._quota.take_tokens(tokens, self._admission.now())
            self._estimate = tokens
        try:
            return self._admission.queue.enter(self._tenant_id, self._share, answers)
        except Refused as refused:
            raise _refusal(refused.why == "own") from None

    def leave(self, ticket: Ticket) -> None:
        """Give the place back."""
        self._admission.queue.leave(ticket)

    async def wait(self, ticket: Ticket, receive: Receive) -> None:
        """Wait for the ticket's turn. Errors as `seat`."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def take_turn() -> None:
            if not turn.done():
                turn.set_result(None)

        ticket.on_turn = take_turn
        try:
            async with watched(receive, self._admission.wait_s):
                await turn
        except TimeoutError:
            raise _refusal(ticket.lane.exceeds_limit(ticket.cost)) from None
        if ticket.state != "seated":
            raise _refusal(ticket.lane.exceeds_limit(ticket.cost))

    def settle(self, tokens: int) -> None:
        """Say how many tokens it came to."""
        if self._quota is not None and self._estimate is not None:
            self._quota.settle(self._estimate, tokens, self._admission.now())
            self._estimate = None

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The rate-limit headers of an answer; none where no rate is limited."""
        if self._quota is None:
            return []
        told = self._quota.headers(self._admission.now())
        return [(name.encode(), value.encode()) for name, value in told.items()]


class Seat:
    """See `Visit.seat`."""

    __slots__ = ("_answers", "_receive", "_ticket", "_tokens", "_visit")

    def __init__(self, visit: Visit, receive: Receive, answers: int, tokens: int) -> None:
        self._visit = visit
        self._receive = receive
        self._answers = answers
        self._tokens = tokens
        self._ticket: Ticket | None = None

    async def __aenter__(self) -> None:
        ticket = self._ticket = self._visit.enter(self._answers, self._tokens)
        if ticket.state == "waiting":
            try:
                await self._visit.wait(ticket, self._receive)
            except BaseException:
                self._visit.leave(ticket)
                raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._ticket is not None
        self._visit.leave(self._ticket)


def _refusal(is_own: bool) -> TTRLError:
    if is_own:
        message = "The limit of answers in the making at once is reached; try again."
        return Overloaded(message, retry_after_s=RETRY_S)
    return ServerFull("The server is full at the moment; try again.", retry_after_s=RETRY_S)
