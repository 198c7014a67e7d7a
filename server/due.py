"""When a tenant's next cycle is due by the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.triggers.cron import CronTrigger
from ttrl_client.types import MAX_INTERVAL_S, Schedule

# A crontab line is looked at for so long, and fires not at all if not by then: the search goes
# through every day, and one for a date that never comes would not end before the year 9999. The
# 29th of February comes at least every eight years.
HORIZON = timedelta(seconds=MAX_INTERVAL_S)


def next_time(schedule: Schedule, since: datetime) -> tuple[datetime, str] | None:
    """When the next cycle is due by the clock, and what triggers it; None: never.

    `since` is when the last cycle was queued, or the tenant was made.

    Raises:
        ValueError: the crontab line is not one.
    """
    times: list[tuple[datetime, str]] = []
    if schedule.interval_s is not None:
        times.append((since + timedelta(seconds=schedule.interval_s), "interval"))
    if schedule.cron is not None:
        at = next_fire(schedule.cron, since)
        if at is not None:
            times.append((at, "cron"))
    return min(times, default=None)


def next_fire(cron: str, since: datetime) -> datetime | None:
    """The first time after `since` that a crontab line names, in UTC; None: not within `HORIZON`.

    Raises:
        ValueError: it is not a crontab line.
    """
    fires: Any = CronTrigger.from_crontab(  # pyright: ignore[reportUnknownMemberType] no annotations
        cron, timezone=UTC
    )
    fires.end_date = since + HORIZON
    return fires.get_next_fire_time(None, since + timedelta(microseconds=1))
