"""A rate as a bucket: it holds a minute's worth, and fills steadily."""

from __future__ import annotations

from typing import Final

MINUTE_S: Final = 60.0


class TokenBucket:
    """`per_minute` units that refill at that rate. Times are seconds of one monotonic clock."""

    __slots__ = ("_filled_at", "_level", "per_minute")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._filled_at = now

    def resize(self, per_minute: int, now: float) -> None:
        """Change the rate: what is used up stays used up."""
        self._fill(now)
        self._level += per_minute - self.per_minute
        self.per_minute = per_minute

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until so much is there; 0: it is now. More than a full bucket is never asked
        for: that counts as a full one.
        """
        self._fill(now)
        lacking = min(amount, self.per_minute) - self._level
        return 0.0 if lacking <= 0 else lacking * MINUTE_S / self.per_minute

    def take(self, amount: float, now: float) -> None:
        """Take so much, whether it is there or not: what lacks must be filled up first."""
        self._fill(now)
        self._level -= amount

    def give_back(self, amount: float, now: float) -> None:
        """Put back what was not needed; it never holds more than a minute's worth."""
        self._fill(now)
        self._level = min(self.per_minute, self._level + amount)

    def remaining(self, now: float) -> int:
        """Whole units that are there."""
        self._fill(now)
        return max(0, int(self._level))

    def reset_s(self, now: float) -> float:
        """Seconds until it is full."""
        self._fill(now)
        return (self.per_minute - self._level) * MINUTE_S / self.per_minute

    def _fill(self, now: float) -> None:
        passed_s = now - self._filled_at
        if passed_s > 0:
            self._filled_at = now
            full, rate = self.per_minute, self.per_minute / MINUTE_S
            self._level = min(full, self._level + passed_s * rate)
