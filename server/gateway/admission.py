"""Bounds the requests in flight, so that overload is answered at once instead of queued."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from server.errors import Overloaded


class Admission:
    """Counts requests in flight over all tenants."""

    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self.in_flight = 0

    @contextmanager
    def enter(self) -> Generator[None]:
        """Be in flight for the block.

        Raises:
            Overloaded: there are too many already.
        """
        if self.in_flight >= self._max_in_flight:
            raise Overloaded("Too many requests are in flight; try again.", retry_after_s=1)
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1


class Turns:
    """Bounds the requests in flight, over all tenants and of each."""

    def __init__(self, max_in_flight: int, max_per_tenant: int) -> None:
        self._everyone = Admission(max_in_flight)
        self._max_per_tenant = max_per_tenant
        self._tenants: dict[int, Admission] = {}

    @contextmanager
    def take(self, tenant_id: int) -> Generator[None]:
        """Be in flight for the block.

        Raises:
            Overloaded: the tenant, or all together, have too many already.
        """
        own = self._tenants.setdefault(tenant_id, Admission(self._max_per_tenant))
        try:
            with own.enter(), self._everyone.enter():
                yield
        finally:
            if not own.in_flight:
                self._tenants.pop(tenant_id, None)
