"""The demo's acts, played against a running server: traffic, measuring, adaptation, swaps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic, perf_counter
from typing import TypeVar

from ttrl_client import AsyncTTRLClient
from ttrl_client.types import Cycle, Page, Swap

from demo import plan
from demo.asking import Asker, Exchange
from demo.audit import Requests, audit
from demo.measure import Measured, measure
from demo.plan import ADDER, PLAYERS
from demo.questions import Question
from demo.report import SwapTimes
from demo.server_process import DemoFailed
from demo.show import Board, Show
from demo.traffic import Background, Ledger, ask_once_each

T = TypeVar("T")

POLL_S = 0.5
PAGE = 200  # items asked for at once
PROMOTED = "promoted"


@dataclass(frozen=True, slots=True)
class Stage:
    """A running server with its two tenants. `check_server` raises when the server has ended."""

    admin: AsyncTTRLClient
    askers: Mapping[str, Asker]
    show: Show
    check_server: Callable[[], None]
    ledger: Ledger = field(default_factory=Ledger)

    async def send_traffic(self) -> None:
        """The unlabelled traffic to learn from, of both tenants at once."""
        pairs = zip(*(self._asked(player) for player in PLAYERS), strict=True)
        asked = [one for pair in pairs for one in pair]
        async with within(plan.TRAFFIC_TIMEOUT_S, "the first traffic"):
            await ask_once_each(asked, at_once=plan.ASKED_AT_ONCE, seen=self.ledger.note)

    def _asked(self, player: plan.Player) -> list[tuple[Asker, Question]]:
        return [(self.askers[player.name], question) for question in player.traffic()[0]]

    async def measure_before(self) -> dict[str, Measured]:
        """Both tenants on fresh questions."""
        return {p.name: await self._measure(p, p.fresh()[0]) for p in PLAYERS}

    async def measure_after(self) -> dict[str, Measured]:
        """Both tenants on other fresh questions."""
        return {p.name: await self._measure(p, p.fresh()[1]) for p in PLAYERS}

    async def _measure(self, player: plan.Player, questions: list[Question]) -> Measured:
        async with within(plan.MEASURE_TIMEOUT_S, f"measuring {player.name}"):
            return await measure(
                self.askers[player.name],
                questions,
                samples=player.samples,
                at_once=plan.MEASURED_AT_ONCE,
                seen=self.ledger.note,
            )

    async def adapt(self) -> Adaptation:
        """Adapt both tenants and swap to and fro while their users go on asking."""
        background = Background(
            {self.askers[player.name]: player.traffic()[1] for player in PLAYERS},
            brisk_requests=plan.BRISK_REQUESTS,
            brisk_per_s=plan.BRISK_PER_S,
            gentle_per_s=plan.GENTLE_PER_S,
            burst=plan.BURST,
            at_once=plan.BACKGROUND_AT_ONCE,
            seen=self.ledger.note,
        )
        async with within(plan.ADAPTATION_TIMEOUT_S, "adaptation"), background.going():
            began, began_at = monotonic(), datetime.now(UTC)
            with self.show.watching(tuple(self.askers)) as board:
                cycles = await self._watch(board)
            seconds, ended_at = monotonic() - began, datetime.now(UTC)
            swap = await self._swap(cycles[ADDER.name])
        return Adaptation(cycles, swap, seconds, (began_at, ended_at))

    async def _watch(self, board: Board) -> dict[str, Cycle]:
        cycles = {tenant: await self.admin.trigger_cycle(tenant) for tenant in self.askers}
        while True:
            for tenant, cycle in cycles.items():
                if not cycle.is_final:
                    cycles[tenant] = await self.admin.read_cycle(tenant, cycle.id)
                    board.cycle(cycles[tenant])
            board.traffic(self.ledger)
            if all(cycle.is_final for cycle in cycles.values()):
                return cycles
            self.check_server()
            await asyncio.sleep(POLL_S)

    async def _swap(self, cycle: Cycle) -> SwapTimes | None:
        """Roll the adder back and promote it again, under traffic; None if it was not promoted."""
        promotions = [swap for swap in await self._swaps(cycle.tenant) if swap.reason == PROMOTED]
        if not promotions:
            return None
        promotion = promotions[0]
        version = await self.admin.read_version(cycle.tenant, promotion.to_version)
        began = perf_counter()
        await self.admin.rollback(cycle.tenant)
        rollback_ms = (perf_counter() - began) * 1e3
        back = await self._ask_now(cycle.tenant)
        rollback_seen_ms = (perf_counter() - began) * 1e3
        await self.admin.promote(cycle.tenant, promotion.to_version)
        forth = await self._ask_now(cycle.tenant)
        return SwapTimes(
            load_ms=float(version.report["load_ms"]),
            flip_ms=promotion.flip_ms,
            rollback_ms=rollback_ms,
            rollback_seen_ms=rollback_seen_ms,
            is_proven=(
                back.adapter == f"{cycle.tenant}--v{promotion.from_version}"
                and forth.adapter == f"{cycle.tenant}--v{promotion.to_version}"
            ),
        )

    async def _ask_now(self, tenant: str) -> Exchange:
        exchange = await self.askers[tenant].ask(ADDER.traffic()[0][0].text)
        self.ledger.note(exchange)
        return exchange

    async def check_requests(self, cycles_ran: tuple[datetime, datetime]) -> Requests:
        """Compare all that was asked with the server's history and log."""
        swaps = {tenant: await self._swaps(tenant) for tenant in self.askers}
        logged = {
            tenant: await all_pages(self.admin.list_queries, tenant) for tenant in self.askers
        }
        return audit(self.ledger.exchanges, swaps, logged, cycles_ran)

    async def live_versions(self) -> dict[str, int]:
        """The version that serves each tenant."""
        return {
            tenant: (await self.admin.read_tenant(tenant)).live_version for tenant in self.askers
        }

    async def _swaps(self, tenant: str) -> list[Swap]:
        """The tenant's swaps, newest first."""
        return await all_pages(self.admin.list_swaps, tenant)


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What came of the cycles, and between which times they ran."""

    cycles: Mapping[str, Cycle]
    swap: SwapTimes | None
    seconds: float
    cycles_ran: tuple[datetime, datetime]


async def all_pages(list_page: Callable[..., Awaitable[Page[T]]], tenant: str) -> list[T]:
    """Everything that a tenant has of a kind, newest first."""
    page = await list_page(tenant, limit=PAGE)
    found = list(page.items)
    while page.next is not None:
        page = await list_page(tenant, limit=PAGE, before=page.next)
        found += page.items
    return found


@asynccontextmanager
async def within(seconds: float, what: str) -> AsyncGenerator[None]:
    """Bound the time of an act.

    Raises:
        DemoFailed: it took longer.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DemoFailed(f"{what} took longer than {seconds:.0f} s.") from None
