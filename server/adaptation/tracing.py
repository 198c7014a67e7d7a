"""The span of a cycle, with links to the requests that it learned from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog
from opentelemetry.trace import Span, format_trace_id, get_current_span

from server.adaptation.tools import Tools
from server.db import cycles, traffic
from server.db.cycles import Lease
from server.db.failures import SQLAlchemyError
from server.observability.traces import MAX_LINKS, logged_span

logger = structlog.get_logger(__name__)


@asynccontextmanager
async def traced(tools: Tools, lease: Lease) -> AsyncGenerator[None]:
    """Trace what one claim of a cycle does, where tracing is on."""
    if tools.traces is None:
        yield
        return
    with tools.traces.cycle(lease.cycle_id, lease.tenant_id) as span:
        trace_id = format_trace_id(span.get_span_context().trace_id)
        with structlog.contextvars.bound_contextvars(trace_id=trace_id):
            try:
                yield
            finally:
                await _link(tools, lease, span)


def entered(phase: str) -> None:
    """Note in the cycle's span what it does now; without one, nothing."""
    get_current_span().add_event(phase)


async def _link(tools: Tools, lease: Lease, span: Span) -> None:
    """Link the requests whose prompts were selected for training, the first so many."""
    try:
        async with tools.database.transaction(write=False) as session:
            cycle = await cycles.cycle_by_id(session, lease.cycle_id)
            selection = None if cycle is None else cycle.selection
            ids = [entry[0] for entry in (selection or {"prompts": []})["prompts"]]
            traced = await traffic.traces_of(session, lease.tenant_id, ids, limit=MAX_LINKS)
    except (SQLAlchemyError, OSError) as error:
        logger.warning("trace without links", error=type(error).__name__)
        return
    for trace_id, span_id in traced:
        span.add_link(logged_span(trace_id, span_id))
