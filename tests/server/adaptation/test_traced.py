"""The cycle's end of a trace."""

from __future__ import annotations

from dataclasses import replace

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import update

from server.db.models import Query
from server.db.traffic import traces_of
from server.observability.traces import Traces

from .scene import Scene

SPAN = "00f067aa0ba902b7"


async def trace_queries(scene: Scene) -> None:
    """Gives every logged query the trace that its number makes."""
    async with scene.database.transaction() as session:
        for number in range(200):
            named = update(Query).where(Query.id == f"q-{scene.tenant_id}-{number}")
            await session.execute(named.values(trace_id=f"{number + 1:032x}", span_id=SPAN))


def watch(scene: Scene) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    scene.tools = replace(scene.tools, traces=Traces(provider))
    return exporter


def linked(span: ReadableSpan) -> set[str]:
    return {f"q-1-{link.context.trace_id - 1}" for link in span.links}


async def test_a_cycle_is_linked_to_the_requests_that_it_learned_from(scene: Scene) -> None:
    await scene.tenant()
    await trace_queries(scene)
    exporter = watch(scene)
    cycle = await scene.run()
    (span,) = exporter.get_finished_spans()
    assert cycle.selection is not None
    assert linked(span) == {entry[0] for entry in cycle.selection["prompts"]}
    assert (span.name, (span.attributes or {})["ttrl.cycle.id"]) == ("cycle", cycle.id)
    phases = list(dict.fromkeys(event.name for event in span.events))
    assert phases == ["baseline", "train", "evaluate", "publish"]


async def test_a_cycle_without_traced_requests_has_no_links(scene: Scene) -> None:
    await scene.tenant()
    exporter = watch(scene)
    await scene.run()
    (span,) = exporter.get_finished_spans()
    assert not span.links


async def test_a_cycles_links_are_bounded(scene: Scene) -> None:
    await scene.tenant()
    await trace_queries(scene)
    ids = [f"q-{scene.tenant_id}-{number}" for number in range(200)]
    async with scene.database.transaction(write=False) as session:
        found = await traces_of(session, scene.tenant_id, ids, limit=3)
        others = await traces_of(session, scene.tenant_id + 1, ids, limit=3)
    assert (len(found), others) == (3, [])
