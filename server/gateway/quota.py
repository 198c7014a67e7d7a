"""A tenant's requests and tokens of the last minute against its limits, in OpenAI's headers."""

from __future__ import annotations

import math
from typing import Final

from ttrl_client.types import Limits

from server.errors import Overloaded
from server.gateway.token_bucket import TokenBucket

MAX_QUOTAS: Final = 4096  # remembered before those that are whole again are cleared away


class Quota:
    """What is left to one tenant. Times are seconds of one monotonic clock."""

    __slots__ = ("requests", "tokens")

    def __init__(self) -> None:
        self.requests: TokenBucket | None = None
        self.tokens: TokenBucket | None = None

    def follow(self, limits: Limits, processes: int, now: float) -> None:
        """Take up the limits as they are now; this process enforces its share of them."""
        self.requests = _followed(self.requests, limits.requests_per_minute, processes, now)
        self.tokens = _followed(self.tokens, limits.tokens_per_minute, processes, now)

    def take_request(self, now: float) -> None:
        """Count a request.

        Raises:
            Overloaded: that is one too many, or the tokens are used up.
        """
        if self.tokens is not None and (wait_s := self.tokens.wait_s(1, now)):
            raise _too_many("tokens", self.tokens, wait_s)
        if self.requests is not None:
            if wait_s := self.requests.wait_s(1, now):
                raise _too_many("requests", self.requests, wait_s)
            self.requests.take(1, now)

    def give_back_request(self, now: float) -> None:
        """Do not count a request after all."""
        if self.requests is not None:
            self.requests.give_back(1, now)

    def take_tokens(self, estimate: int, now: float) -> None:
        """Count tokens before they are made.

        Raises:
            Overloaded: there are not so many left.
        """
        if self.tokens is not None:
            if wait_s := self.tokens.wait_s(estimate, now):
                raise _too_many("tokens", self.tokens, wait_s)
            self.tokens.take(estimate, now)

    def settle(self, estimate: int, used: int, now: float) -> None:
        """Put the tokens that were used in the place of those that were thought to be."""
        if self.tokens is not None:
            if used > estimate:
                self.tokens.take(used - estimate, now)
            else:
                self.tokens.give_back(estimate - used, now)

    def is_whole(self, now: float) -> bool:
        """Whether it is as good as new."""
        buckets = (self.requests, self.tokens)
        return all(bucket is None or bucket.reset_s(now) <= 0 for bucket in buckets)

    def headers(self, now: float) -> dict[str, str]:
        """OpenAI's rate-limit headers, of the limits that are set."""
        told: dict[str, str] = {}
        for name, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket is not None:
                told[f"x-ratelimit-limit-{name}"] = str(bucket.per_minute)
                told[f"x-ratelimit-remaining-{name}"] = str(bucket.remaining(now))
                told[f"x-ratelimit-reset-{name}"] = duration(bucket.reset_s(now))
        return told


class Quotas:
    """The quotas of all tenants that have one, by tenant id."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._quotas: dict[int, tuple[Limits, Quota]] = {}

    def of(self, tenant_id: int, limits: Limits, now: float) -> Quota | None:
        """The tenant's quota; None when no rate is limited."""
        if limits.requests_per_minute is None and limits.tokens_per_minute is None:
            return None
        known = self._quotas.get(tenant_id)
        if known is not None and known[0] is limits:
            return known[1]
        quota = Quota() if known is None else known[1]
        if known is None or known[0] != limits:
            quota.follow(limits, self._processes, now)
        if known is None and len(self._quotas) >= MAX_QUOTAS:
            self._quotas = {
                at: some for at, some in self._quotas.items() if not some[1].is_whole(now)
            }
        self._quotas[tenant_id] = limits, quota
        return quota


def duration(seconds: float) -> str:
    """As OpenAI writes durations: `120ms`, `6.5s`, `1m3s`."""
    ms = math.ceil(max(0.0, seconds) * 1e3)
    if ms < 1000:
        return f"{ms}ms"
    minutes, rest = divmod(ms / 1e3, 60)
    return f"{int(minutes)}m{rest:.3g}s" if minutes else f"{rest:.4g}s"


def _followed(
    bucket: TokenBucket | None, per_minute: int | None, processes: int, now: float
) -> TokenBucket | None:
    if per_minute is None:
        return None
    share = math.ceil(per_minute / processes)
    if bucket is None:
        return TokenBucket(share, now)
    bucket.resize(share, now)
    return bucket


def _too_many(what: str, bucket: TokenBucket, wait_s: float) -> Overloaded:
    return Overloaded(
        f"The limit of {bucket.per_minute} {what} per minute is reached;"
        f" try again in {duration(wait_s)}.",
        retry_after_s=max(1, math.ceil(wait_s)),
    )
