"""OpenTelemetry traces: a request from the client through the engine to its log row, and on to the
cycle that learned from it.

Only where an endpoint is set; without one nothing of this runs. The names of attributes are those
of the GenAI semantic conventions, which are still being worked on, so they stand here alone.
Prompts and answers stay out unless the settings ask for them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from importlib.metadata import version
from threading import Thread
from typing import Any, Final, TypeVar

import msgspec
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from server.config import Settings
from server.observability.requests import LEFT, Observed

OPERATIONS: Final = {"completions": "text_completion"}  # of the other routes: chat
PROVIDER: Final = "ttrl"
MAX_LINKS: Final = 128  # of a cycle's span; what is selected above that is not linked
MAX_CONTENT_CHARS: Final = 16_384
CARRIED: Final = (b"traceparent", b"tracestate")
CLOSE_S: Final = 3.0

# Our parameters by the conventions' names.
PARAMETERS: Final = {
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "n": "gen_ai.request.choice.count",
    "seed": "gen_ai.request.seed",
}

T = TypeVar("T")


class Traces:
    """Begins traces, or goes on with those that clients have begun."""

    def __init__(self, provider: TracerProvider, *, content: bool = False) -> None:
        self.content = content
        self._provider = provider
        self._tracer = provider.get_tracer("ttrl", version("ttrl-server"))
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, scope: Scope, seen: Observed) -> RequestTrace:
        """The trace of a request that was let in; `traceparent` of the client is honoured."""
        carrier = {
            name.decode(): value.decode("latin1")
            for name, value in scope["headers"]
            if name in CARRIED
        }
        operation = OPERATIONS.get(seen.route, "chat")
        span = self._tracer.start_span(
            operation,
            self._propagator.extract(carrier, context=Context()),
            kind=SpanKind.SERVER,
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": PROVIDER,
                "http.request.method": "POST",
                "http.route": str(scope["path"]),
                "ttrl.request.id": seen.request_id,
            },
        )
        return RequestTrace(self, span, operation)

    def child(self, parent: Context, name: str, kind: SpanKind = SpanKind.INTERNAL) -> Span:
        """A span below another."""
        return self._tracer.start_span(name, parent, kind=kind)

    def inject(self, span: Span, headers: MutableMapping[str, str]) -> None:
        """Tell whoever is asked next what this is a part of."""
        self._propagator.inject(headers, context=set_span_in_context(span, Context()))

    @contextmanager
    def cycle(self, cycle_id: int, tenant_id: int) -> Generator[Span]:
        """The span of a cycle under one claim. An error that is passed on ends it as failed."""
        attributes = {"ttrl.cycle.id": cycle_id, "ttrl.tenant.id": tenant_id}
        with self._tracer.start_as_current_span("cycle", Context(), attributes=attributes) as span:
            yield span

    def close(self) -> None:
        """Send what waits, and end. Blocking, but no longer than a collector that is away is worth:
        the library would try again and again.
        """
        closing = Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


class RequestTrace:
    """The span of one request, and those below it."""

    __slots__ = ("_context", "_operation", "_span", "_traces", "span_id", "trace_id")

    def __init__(self, traces: Traces, span: Span, operation: str) -> None:
        self._traces = traces
        self._span = span
        self._operation = operation
        self._context = set_span_in_context(span, Context())
        own = span.get_span_context()
        self.trace_id = format_trace_id(own.trace_id)
        self.span_id = format_span_id(own.span_id)

    def asked(self, model: str, params: Mapping[str, Any], prompt: Any) -> None:
        """What is asked, of whom; `model` has been checked to be one that there is."""
        self._span.update_name(f"{self._operation} {model}")
        self._span.set_attribute("gen_ai.request.model", model)
        for name, attribute in PARAMETERS.items():
            if isinstance(value := params.get(name), (int, float)):
                self._span.set_attribute(attribute, value)
        if self._traces.content:
            self._span.set_attribute("gen_ai.input.messages", _content(prompt))

    def answered(self, answer_id: str, label: str, answers: Iterable[Any]) -> None:
        """What came of it; `label` names the adapter version."""
        answers = tuple(answers)
        self._span.set_attributes(
            {
                "gen_ai.response.id": answer_id,
                "gen_ai.response.model": label,
                "gen_ai.response.finish_reasons": [a.finish_reason or "none" for a in answers],
            }
        )
        if self._traces.content:
            self._span.set_attribute("gen_ai.output.messages", _content(answers))

    @asynccontextmanager
    async def engine_call(
        self, asking: AbstractAsyncContextManager[T], headers: MutableMapping[str, str]
    ) -> AsyncGenerator[T]:
        """Around a call of an engine, which is told the trace in its headers."""
        span = self._traces.child(self._context, "engine", SpanKind.CLIENT)
        self._traces.inject(span, headers)
        try:
            async with asking as response:
                yield response
        except BaseException as error:
            _fail(span, type(error).__name__)
            raise
        finally:
            span.end()

    @contextmanager
    def log_commit(self) -> Generator[None]:
        """Around the wait for the log."""
        span = self._traces.child(self._context, "log commit")
        try:
            yield
        except BaseException as error:
            _fail(span, type(error).__name__)
            raise
        finally:
            span.end()

    def end(self, seen: Observed) -> None:
        """The request is over."""
        known = {
            "http.response.status_code": seen.status,
            "gen_ai.usage.input_tokens": seen.prompt_tokens,
            "gen_ai.usage.output_tokens": seen.completion_tokens,
            "ttrl.tenant.id": seen.tenant_id,
            "ttrl.adapter.version": seen.version,
            "ttrl.first_byte_ms": seen.first_byte_ms,
        }
        self._span.set_attributes({k: v for k, v in known.items() if v is not None})
        if seen.has_failed or seen.status >= 500:
            _fail(self._span, str(seen.status))
        elif seen.status == LEFT:
            self._span.set_attribute("error.type", "client_left")
        self._span.end()


def _fail(span: Span, error: str) -> None:
    span.set_attribute("error.type", error)
    span.set_status(Status(StatusCode.ERROR))


def _content(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:MAX_CONTENT_CHARS]


def logged_span(trace_id: str, span_id: str) -> SpanContext:
    """The span of a logged request, by what its row says."""
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(TraceFlags.SAMPLED))


def open_traces(settings: Settings, *, process: str) -> Traces | None:
    """Traces as the settings want them; None: none at all."""
    if settings.otlp_endpoint is None:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {
            "service.name": f"ttrl-{process}",
            "service.version": version("ttrl-server"),
        }
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=traces_url(settings.otlp_endpoint))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Traces(provider, content=settings.trace_content)


def traces_url(endpoint: str) -> str:
    """Where spans are sent: the endpoint's path for traces, as OTLP over HTTP has it."""
    endpoint = endpoint.rstrip("/")
    return endpoint if endpoint.endswith("/v1/traces") else f"{endpoint}/v1/traces"
