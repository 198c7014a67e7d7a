"""Structured logs: readable on a terminal, JSON for machines. Prompts and answers stay out.

What a client sent may stand in a line, such as a path or an error's message; so control characters
are escaped, and keys are cut off, in every line of every logger.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, Final, Protocol, cast

import structlog

from server.config import Settings

# What a terminal obeys, or a reader is fooled by: C0, C1, ends of lines, marks of direction.
CONTROLS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
SECRETS: Final = re.compile(r"(sk-ttrl-|ttrl-admin-|(?i:bearer )\s*)[^\s\"',;]+")
SHORT: Final = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}
MAX_DEPTH: Final = 4  # of values in values that are looked into; deeper ones are shown as text


class RequestInHand(Protocol):
    """What log lines say about the request that they are about."""

    @property
    def request_id(self) -> str: ...
    @property
    def trace_id(self) -> str | None: ...
    @property
    def tenant_id(self) -> int | None: ...


REQUEST: Final[ContextVar[RequestInHand | None]] = ContextVar("request", default=None)

Event = MutableMapping[str, Any]


def configure_logging(settings: Settings, *, process: str) -> None:
    """Send structlog and the standard library's loggers to standard error in one format."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        name_request,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        make_harmless,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(settings.log_level.upper())
    for noisy in ("httpx", "httpcore", "apscheduler", "aiosqlite", "alembic", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It warns of every tick that is skipped because the last one still runs: that is as meant.
    logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
    structlog.contextvars.bind_contextvars(process=process)


def name_request(_logger: Any, _method: str, event: Event) -> Event:
    """Say which request a line is about."""
    request = REQUEST.get()
    if request is not None:
        event.setdefault("request_id", request.request_id)
        if request.trace_id is not None:
            event.setdefault("trace_id", request.trace_id)
        if request.tenant_id is not None:
            event.setdefault("tenant_id", request.tenant_id)
    return event


def make_harmless(_logger: Any, _method: str, event: Event) -> Event:
    """Escape what could end a line or steer a terminal, and cut off secrets.

    Tracebacks keep their lines, each behind a bar: none of them can pass for a line of the log.
    """
    event.pop("color_message", None)  # uvicorn's, for terminals: the event says the same
    for name, value in list(event.items()):
        if name in ("exception", "stack") and isinstance(value, str):
            lines = re.split(r"\r?\n", value)
            event[name] = "\n".join(f"| {harmless(line)}" for line in lines)
        elif not name.startswith("_"):  # those are structlog's own
            event[name] = _harmless_value(value, 0)
    return event


def harmless(text: str) -> str:
    """One line of visible characters, without secrets."""
    if not text.isascii() or not text.isprintable():
        text = CONTROLS.sub(_escaped, text)
    return SECRETS.sub(r"\1...", text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code in SHORT:
        return SHORT[code]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _harmless_value(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return harmless(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict) and depth < MAX_DEPTH:
        items = cast("dict[Any, Any]", value).items()
        return {harmless(str(key)): _harmless_value(item, depth + 1) for key, item in items}
    if isinstance(value, (list, tuple)) and depth < MAX_DEPTH:
        return [_harmless_value(item, depth + 1) for item in cast("list[Any]", value)]
    return harmless(repr(cast(object, value)))
