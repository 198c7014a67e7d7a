"""When cycles start by themselves: an interval, a crontab line, a threshold of new queries.

APScheduler is a mere timer in the memory of the leading worker: it wakes the planner at each tick,
and at each time that a tenant's schedule names. Whether a cycle is due is a function of the
database, so a new leader goes on where the old one stopped, times that were missed are made up for
once, and a tenant whose cycle is pending or running gets no second one.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from ttrl_client.types import Schedule, TenantSettings

from server.clock import Clock
from server.config import Settings
from server.db import cycles, leadership, traffic
from server.db.engine import Database
from server.db.tenants import tenant_by_id
from server.db.traffic import Traffic
from server.due import next_time
from server.errors import Conflict, NotFound

logger = structlog.get_logger(__name__)

LEADERSHIP = "scheduler"
TICK = "tick"


@dataclass(frozen=True, slots=True)
class _Alarm:
    """What a tenant's timer was set from."""

    schedule: Mapping[str, Any]
    since: datetime
    due: datetime | None
    counts: bool  # whether new queries have a say


def _alarm(tenant: Traffic) -> _Alarm:
    """One that never rings where the schedule cannot be read: the other tenants' go on."""
    try:
        schedule = Schedule.model_validate(tenant.schedule)
        due = next_time(schedule, tenant.since)
    except ValueError as error:  # a ValidationError is one
        _warn(tenant.tenant_id, error)
        return _Alarm(tenant.schedule, tenant.since, None, counts=False)
    counts = schedule.min_new_queries is not None
    return _Alarm(tenant.schedule, tenant.since, due and due[0], counts)


def _warn(tenant_id: int, error: ValueError) -> None:
    logger.warning("no cycles: settings cannot be read", tenant_id=tenant_id, error=str(error))


class Planner:
    """Queues cycles that are due, as long as this worker leads."""

    def __init__(self, settings: Settings, database: Database, clock: Clock, *, owner: str) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._owner = owner
        self._timer: Any = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._armed: dict[int, _Alarm] = {}
        self._unreadable: dict[int, Mapping[str, Any]] = {}  # settings that were warned of
        self._renewed = clock.now()
        self.is_leader = False

    async def start(self) -> None:
        """Begin to tick."""
        tick_s: Any = self._settings.scheduler_tick_s
        every = IntervalTrigger(seconds=tick_s, timezone=UTC)
        self._timer.add_job(self.tick, every, id=TICK, next_run_time=datetime.now(UTC))
        self._timer.start()

    async def stop(self) -> None:
        """Stop ticking, and let another worker lead at once."""
        self._timer.shutdown(wait=False)
        if self.is_leader:
            self.is_leader = False
            async with self._database.transaction() as session:
                await leadership.let_go(session, LEADERSHIP, owner=self._owner)

    async def tick(self) -> None:
        """Lead if nobody else does; then follow the tenants' schedules, and count new queries."""
        await self._hold_leadership()
        tenants: list[Traffic] = []
        if self.is_leader:
            async with self._database.transaction(write=False) as session:
                tenants = await traffic.traffic_of_tenants(session)
        self._arm({tenant.tenant_id: tenant for tenant in tenants if tenant.schedule})
        for tenant_id in [i for i, alarm in self._armed.items() if alarm.counts]:
            await self.plan(tenant_id)

    async def _hold_leadership(self) -> None:
        now, lease_s = self._clock.now(), self._settings.lease_s
        if self.is_leader and now < self._renewed + timedelta(seconds=lease_s / 3):
            return
        async with self._database.transaction() as session:
            leads = await leadership.hold(
                session, LEADERSHIP, owner=self._owner, now=now, lease_s=lease_s
            )
        if leads != self.is_leader:
            logger.info("leading" if leads else "following", owner=self._owner)
        self.is_leader, self._renewed = leads, now

    @property
    def armed(self) -> dict[int, datetime]:
        """The tenants whose next time is known, and that time."""
        return {i: alarm.due for i, alarm in self._armed.items() if alarm.due is not None}

    def _arm(self, tenants: Mapping[int, Traffic]) -> None:
        """One timer a tenant, at its next time; changed schedules and new cycles move it."""
        for tenant_id in self._armed.keys() - tenants.keys():
            self._disarm(tenant_id)
        for tenant_id, tenant in tenants.items():
            alarm = self._armed.get(tenant_id)
            if alarm is None or (alarm.schedule, alarm.since) != (tenant.schedule, tenant.since):
                self._disarm(tenant_id)
                alarm = self._armed[tenant_id] = _alarm(tenant)
            # One that rang while a cycle was active is set again, until a new cycle moves it.
            if alarm.due is not None and self._timer.get_job(str(tenant_id)) is None:
                trigger = DateTrigger(alarm.due, timezone=UTC)
                self._timer.add_job(self.plan, trigger, [tenant_id], id=str(tenant_id))

    def _warn_once(self, tenant_id: int, stored: Mapping[str, Any], error: ValueError) -> None:
        if self._unreadable.get(tenant_id) != stored:
            self._unreadable[tenant_id] = stored
            _warn(tenant_id, error)

    def _disarm(self, tenant_id: int) -> None:
        self._unreadable.pop(tenant_id, None)
        if self._armed.pop(tenant_id, None) is not None:
            with suppress(JobLookupError):  # it rang
                self._timer.remove_job(str(tenant_id))

    async def plan(self, tenant_id: int) -> int | None:
        """Queue a cycle for the tenant if one is due; its id. Only in the leader."""
        if not self.is_leader:
            return None
        due = await self._due(tenant_id)
        if due is None:
            return None
        settings, trigger = due
        try:
            async with self._database.transaction() as session:
                cycle = await cycles.enqueue(
                    session,
                    tenant_id=tenant_id,
                    trigger=trigger,
                    settings=settings,
                    seed=secrets.randbelow(2**31),
                    now=self._clock.now(),
                )
        except (Conflict, NotFound):  # somebody was quicker, or the tenant is gone
            return None
        logger.info("cycle queued", tenant_id=tenant_id, cycle_id=cycle.id, trigger=trigger)
        return cycle.id

    async def _due(self, tenant_id: int) -> tuple[TenantSettings, str] | None:
        """The tenant's settings and what triggers a cycle now; None: nothing does."""
        async with self._database.transaction(write=False) as session:
            tenant = await tenant_by_id(session, tenant_id)
            if tenant is None or await cycles.active_cycle(session, tenant_id) is not None:
                return None
            since = await traffic.last_queued(session, tenant_id) or tenant.created_at
            try:
                settings = TenantSettings.model_validate(tenant.settings)
                by_clock = next_time(settings.schedule, since)
            except ValueError as error:  # a ValidationError is one
                self._warn_once(tenant_id, tenant.settings, error)
                return None
            if by_clock is not None and by_clock[0] <= self._clock.now():
                return settings, by_clock[1]
            wanted = settings.schedule.min_new_queries
            if wanted is None:
                return None
            new = await traffic.count_new_queries(session, tenant_id, since, at_most=wanted)
        return (settings, "threshold") if new >= wanted else None
