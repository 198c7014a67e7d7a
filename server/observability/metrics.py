"""What this process counts itself. Every label is from a fixed set, or bounded.

A request costs a handful of additions: the series that it adds to are looked up once and kept.
docs/operations.md ("Watching it") describes each metric; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import Metric

from server.observability.requests import GENERATING, ROUTES, Observed

OTHER: Final = "other"  # tenants past the bound, together
LATENCIES_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
LOG_TIMES_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class _OfTenant:
    """The series of one tenant, or of all the others."""

    __slots__ = ("completion_tokens", "prompt_tokens", "requests")

    def __init__(self, label: str, requests: Counter, tokens: Counter) -> None:
        self.requests = requests.labels(label)
        self.prompt_tokens = tokens.labels(label, "prompt")
        self.completion_tokens = tokens.labels(label, "completion")


class Metrics:
    """The counters and histograms of one process, in a registry of its own.

    `max_tenants` tenants get series of their own, the first that come; the rest share one.
    """

    def __init__(self, *, max_tenants: int) -> None:
        self.in_flight = 0  # requests of all routes that are being answered
        self._registry = own = CollectorRegistry()
        self._max_tenants = max_tenants
        timed = partial(Histogram, labelnames=("route",), buckets=LATENCIES_S, registry=own)
        stored = partial(Histogram, buckets=LOG_TIMES_S, registry=own)
        counted = partial(Counter, registry=own)
        self._requests = counted("ttrl_requests", "Requests answered.", ("route", "status"))
        self._seconds = timed("ttrl_request_seconds", "From arrival to the end of the answer.")
        self._first = timed("ttrl_first_token_seconds", "From arrival to a stream's first event.")
        self._failed = counted("ttrl_streams_failed", "Streams that ended in an error.", ("route",))
        self._tenant_requests = counted(
            "ttrl_tenant_requests", "Requests with a tenant's key.", ("tenant",)
        )
        self._tokens = counted("ttrl_tokens", "Tokens read and generated.", ("tenant", "kind"))
        self._log_wait = stored("ttrl_log_wait_seconds", "How long an answer waited to be stored.")
        self._commit = stored("ttrl_log_commit_seconds", "How long a group commit took.")
        self._committed = counted("ttrl_log_committed_entries", "Answers in those commits.")
        self._logged = counted("ttrl_logged_queries", "Queries in the log.", ("reason",))
        self._logged_as: dict[str, Counter] = {}
        self._seconds_of = {route: self._seconds.labels(route) for route in ROUTES}
        self._first_of = {route: self._first.labels(route) for route in GENERATING}
        self._failed_of = {route: self._failed.labels(route) for route in GENERATING}
        self._requests_of: dict[tuple[str, int], Counter] = {}
        self._tenants: dict[str, _OfTenant] = {}
        self._others = _OfTenant(OTHER, self._tenant_requests, self._tokens)

    def finished(self, seen: Observed, seconds: float) -> None:
        """Count a request that is over."""
        key = (seen.route, seen.status)
        requests = self._requests_of.get(key)
        if requests is None:  # what we answer with is a fixed set, and so is a route
            requests = self._requests_of[key] = self._requests.labels(seen.route, str(seen.status))
        requests.inc()
        self._seconds_of[seen.route].observe(seconds)
        if seen.tenant is not None:
            self._count_tenant(seen.tenant, seen)
        if seen.first_byte_ms is not None and seen.route in self._first_of:
            self._first_of[seen.route].observe(seen.first_byte_ms / 1e3)
        if seen.log_ms is not None:
            self._log_wait.observe(seen.log_ms / 1e3)
        if seen.logged_as is not None:
            self._count_logged(seen.logged_as)
        if seen.has_failed and seen.route in self._failed_of:
            self._failed_of[seen.route].inc()

    def _count_logged(self, reason: str) -> None:
        logged = self._logged_as.get(reason)
        if logged is None:  # reasons are words of the code
            logged = self._logged_as[reason] = self._logged.labels(reason)
        logged.inc()

    def _count_tenant(self, tenant: str, seen: Observed) -> None:
        series = self._tenants.get(tenant)
        if series is None:
            series = self._new_tenant(tenant)
        series.requests.inc()
        if seen.prompt_tokens:
            series.prompt_tokens.inc(seen.prompt_tokens)
        if seen.completion_tokens:
            series.completion_tokens.inc(seen.completion_tokens)

    def _new_tenant(self, tenant: str) -> _OfTenant:
        if tenant == OTHER or len(self._tenants) >= self._max_tenants:
            return self._others
        series = _OfTenant(tenant, self._tenant_requests, self._tokens)
        self._tenants[tenant] = series
        return series

    def committed(self, num_entries: int, seconds: float) -> None:
        """Count a group commit of the log."""
        self._commit.observe(seconds)
        self._committed.inc(num_entries)

    def collect(self) -> Iterable[Metric]:
        """All series as they are now; without the times at which they began, which nobody needs."""
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric
