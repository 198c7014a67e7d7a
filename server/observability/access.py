"""One line for each request: who, what, how it ended, how long it took. Never what was said.

Not by way of the standard library's loggers, which take ten times as long. Nothing in a line comes
from a client as it was sent: there are numbers, ids of our own and names from fixed sets.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from server.observability.requests import Observed

PROBES = "health"  # never: one a second says nothing, and what changes has lines of its own
SCRAPES = "metrics"  # only when they fail

Write = Callable[[str], object]


class AccessLog:
    """Writes lines in the format of the other logs. `write` takes whole lines."""

    def __init__(self, write: Write, *, style: Literal["console", "json"]) -> None:
        self._write = write
        self._render = _json_line if style == "json" else _console_line

    def write(self, seen: Observed, seconds: float) -> None:
        """One line about a request that is over."""
        if seen.route == PROBES or (seen.route == SCRAPES and seen.status < 400):
            return
        try:
            self._write(self._render(_facts(seen, seconds)))
        except (OSError, ValueError):  # nobody reads the log any more; requests go on
            return


def _facts(seen: Observed, seconds: float) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "request_id": seen.request_id,
        "trace_id": seen.trace_id,
        "tenant_id": seen.tenant_id,
        "route": seen.route,
        "status": seen.status,
        "ms": round(seconds * 1e3, 1),
        "first_byte_ms": seen.first_byte_ms and round(seen.first_byte_ms, 1),
        "log_ms": seen.log_ms and round(seen.log_ms, 1),
        "prompt_tokens": seen.prompt_tokens,
        "completion_tokens": seen.completion_tokens,
        "version": seen.version,
        "failed": seen.has_failed or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _json_line(facts: dict[str, Any]) -> str:
    head = {"event": "request", "level": "info", "logger": "server.access", "timestamp": _now()}
    return msgspec.json.encode(head | facts).decode() + "\n"


def _console_line(facts: dict[str, Any]) -> str:
    shown = " ".join(f"{name}={value}" for name, value in facts.items())
    return f"{_now()} [info     ] request [server.access] {shown}\n"
