"""What is noted down about one request while it is answered: for metrics, log lines and traces."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Final

from starlette.types import Scope

if TYPE_CHECKING:
    from server.observability.traces import RequestTrace

KEY: Final = "ttrl.observed"  # in the ASGI scope
LEFT: Final = 499  # the status that stands for a client that did not wait
UNKNOWN: Final = "unknown"

PATHS: Final = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "count_tokens",
    "/v1/models": "models",
    "/v1/feedback": "feedback",
    "/v1/feedback/batch": "feedback",
    "/healthz": "health",
    "/readyz": "health",
    "/metrics": "metrics",
}
GENERATING: Final = (
    "chat",
    "completions",
    "responses",
    "messages",
)  # routes that an engine answers
ROUTES: Final = (*dict.fromkeys(PATHS.values()), "admin", UNKNOWN)


def route_of(path: str) -> str:
    """The route's name: one of `ROUTES`, whatever a client asks for."""
    route = PATHS.get(path)
    if route is not None:
        return route
    if path.startswith("/v1/models/"):
        return "models"
    return "admin" if path.startswith("/admin/") else UNKNOWN


@dataclass(slots=True)
class Observed:
    """One request as far as it has come. `started` is in seconds of the performance counter.

    `status` is 0 until the response has begun; `has_failed`: the stream ended with an error event.
    """

    route: str = UNKNOWN
    request_id: str = field(default_factory=lambda: os.urandom(16).hex())
    started: float = field(default_factory=perf_counter)
    status: int = 0
    has_left: bool = False
    has_failed: bool = False
    tenant_id: int | None = None
    tenant: str | None = None
    version: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_byte_ms: float | None = None  # of streams only
    log_ms: float | None = None
    logged_as: str | None = None  # why it cannot be learned from, or `eligible`
    trace: RequestTrace | None = None

    @property
    def trace_id(self) -> str | None:
        """The trace that the request belongs to, 32 hex digits; None: it is not traced."""
        return None if self.trace is None else self.trace.trace_id

    def let_in(self, tenant_id: int, tenant: str) -> None:
        """Whose key it was."""
        self.tenant_id, self.tenant = tenant_id, tenant


def observed(scope: Scope) -> Observed:
    """What is noted about this request; of an app that nobody watches, notes for nobody."""
    seen = scope.get(KEY)
    return seen if isinstance(seen, Observed) else Observed(route_of(scope["path"]))
