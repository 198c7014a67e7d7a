"""Bounds short work that needs no seat: over all tenants, and of each."""

from __future__ import annotations

from collections import Counter
from functools import partial

from server.errors import Overloaded, ServerFull
from server.held import Held


class Turns:
    """Counts what is in flight."""

    def __init__(self, max_in_flight: int, max_per_tenant: int) -> None:
        self._max_in_flight = max_in_flight
        self._max_per_tenant = max_per_tenant
        self.in_flight = 0
        self._tenants: Counter[int] = Counter()

    def take(self, tenant_id: int) -> Held:
        """Be in flight for the block.

        Raises:
            Overloaded: the tenant has too many already.
            ServerFull: all together have.
        """
        return Held(partial(self._begin, tenant_id), partial(self._end, tenant_id))

    def _begin(self, tenant_id: int) -> None:
        if self._tenants[tenant_id] >= self._max_per_tenant:
            raise Overloaded("Too many requests are in flight; try again.", retry_after_s=1)
        if self.in_flight >= self._max_in_flight:
            raise ServerFull("Too many requests are in flight; try again.", retry_after_s=1)
        self.in_flight += 1
        self._tenants[tenant_id] += 1

    def _end(self, tenant_id: int) -> None:
        self.in_flight -= 1
        self._tenants[tenant_id] -= 1
        if not self._tenants[tenant_id]:
            del self._tenants[tenant_id]
