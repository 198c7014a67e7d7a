from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sqlalchemy import select

from server.config import Settings
from server.db.models import Query
from server.engine.launch import engine_command
from server.observability.traces import open_traces, traces_url
from tests.fakes.vllm import Fault

from .conftest import Watched, ids, watched

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture
async def telling(tmp_path: Path, sqlite_template: Path) -> AsyncGenerator[Watched]:
    async with watched(tmp_path, sqlite_template, traced=True, content=True) as app:
        yield app


async def row(app: Watched) -> Query:
    await app.parts.recorder.flush()
    async with app.parts.database.transaction(write=False) as session:
        return (await session.scalars(select(Query))).one()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_followed_from_the_client_to_the_engine_and_the_log(
    traced: Watched, stream: bool
) -> None:
    answer = await traced.ask(headers=TRACEPARENT, stream=stream, temperature=0.5)
    assert answer.status_code == 200
    spans = traced.spans()
    assert spans.keys() == {"chat ttrl", "engine", "log commit"}
    assert {ids(span)[0] for span in spans.values()} == {TRACE}
    request, engine = spans["chat ttrl"], spans["engine"]
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    for name in ("engine", "log commit"):
        parent = spans[name].parent
        assert parent is not None
        assert f"{parent.span_id:016x}" == ids(request)[1]
    (asked,) = traced.fake.received("/v1/chat/completions")
    assert asked.headers["traceparent"] == f"00-{TRACE}-{ids(engine)[1]}-01"
    logged = await row(traced)
    assert (logged.trace_id, logged.span_id) == ids(request)


async def test_a_span_speaks_the_conventions_of_genai(traced: Watched) -> None:
    answer = (await traced.ask(temperature=0.5)).json()
    attributes = dict(traced.spans()["chat ttrl"].attributes or {})
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "ttrl",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.id": answer["id"],
        "gen_ai.response.model": "acme--v0",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": answer["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": answer["usage"]["completion_tokens"],
        "http.response.status_code": 200,
        "ttrl.adapter.version": 0,
    }
    assert attributes.items() >= expected.items()


async def test_contents_are_in_no_span(traced: Watched) -> None:
    await traced.ask("a secret question")
    assert "secret question" not in "".join(span.to_json() for span in traced.spans().values())


async def test_contents_are_in_the_span_where_that_is_wanted(telling: Watched) -> None:
    await telling.ask("a secret question")
    attributes = dict(telling.spans()["chat ttrl"].attributes or {})
    assert "a secret question" in str(attributes["gen_ai.input.messages"])
    assert "a secret question" in str(attributes["gen_ai.output.messages"])


async def test_a_broken_traceparent_begins_a_trace_of_its_own(traced: Watched) -> None:
    assert (await traced.ask(headers={"traceparent": "00-x-y-01"})).status_code == 200
    assert traced.spans()["chat ttrl"].parent is None


async def test_an_engine_that_fails_is_an_error_of_both_spans(traced: Watched) -> None:
    traced.fake.script("/v1/chat/completions", Fault(status=500))
    answer = await traced.ask()
    spans = traced.spans()
    assert answer.status_code >= 500
    assert {spans[name].status.is_ok for name in ("chat ttrl", "engine")} == {False}


async def test_a_request_that_is_not_traced_has_no_trace_in_the_log(app: Watched) -> None:
    await app.ask(headers=TRACEPARENT)
    assert (await row(app)).trace_id is None
    (asked,) = app.fake.received("/v1/chat/completions")
    assert "traceparent" not in asked.headers


def test_nothing_is_traced_unless_somebody_asks_for_it(tmp_path: Path) -> None:
    assert open_traces(Settings(data_dir=tmp_path, otlp_endpoint=None), process="web") is None


def test_opentelemetrys_own_variable_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    settings = Settings(data_dir=tmp_path)
    traces = open_traces(settings, process="web")
    assert traces is not None
    traces.close()
    command = engine_command(settings, port=1)
    at = command.argv.index("--otlp-traces-endpoint")
    assert command.argv[at + 1] == "http://collector:4318/v1/traces"
    assert command.env["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"


@pytest.mark.parametrize("endpoint", ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"])
def test_spans_go_to_the_endpoints_path_for_traces(endpoint: str) -> None:
    assert traces_url(endpoint) == "http://c:4318/v1/traces"
