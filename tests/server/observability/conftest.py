"""The whole web app over a fake engine, watched."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from server.app import create_app
from server.auth import Keys
from server.config import Settings
from server.observability.access import AccessLog
from server.observability.traces import Traces
from server.parts import Parts
from tests.fakes.serving import serve
from tests.fakes.vllm import FakeVLLM

ADMIN_KEY, METRICS_KEY = "an-admin-key", "a-metrics-key"


@dataclass
class Watched:
    """A running app, and what could be seen of it."""

    parts: Parts
    fake: FakeVLLM
    http: httpx.AsyncClient
    lines: list[str]
    exporter: InMemorySpanExporter
    key: str = ""

    async def make_tenant(self, name: str) -> str:
        made = await self.http.post(
            "/admin/v1/tenants", json={"name": name}, headers=bearer(ADMIN_KEY)
        )
        return made.json()["key"]["secret"]

    async def ask(
        self, content: str = "2+2", *, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        body = {"model": "ttrl", "messages": [{"role": "user", "content": content}], **fields}
        return await self.http.post(
            "/v1/chat/completions", json=body, headers=bearer(self.key) | (headers or {})
        )

    async def scrape(self, key: str = METRICS_KEY) -> dict[tuple[str, tuple[str, ...]], float]:
        """Samples by name and label values, in the order of the labels' names."""
        answer = await self.http.get("/metrics", headers=bearer(key))
        assert answer.status_code == 200
        return {
            (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


def ids(span: ReadableSpan) -> tuple[str, str]:
    """Its trace id and its own, in hex."""
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def watched(
    tmp_path: Path, template: Path, *, traced: bool = False, content: bool = False, **values: Any
) -> AsyncGenerator[Watched]:
    shutil.copy(template, tmp_path / "ttrl.db")
    settings = Settings(data_dir=tmp_path, engine_poll_s=0.05, **values)
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with AsyncExitStack() as held:
        fake = FakeVLLM(check_files=False)
        url = await held.enter_async_context(serve(fake))
        parts = Parts.assemble(
            settings,
            keys=Keys(ADMIN_KEY, b"pepper", METRICS_KEY),
            engine_urls=(url,),
            identity_dir=tmp_path / "identity",
        )
        parts = replace(parts, traces=Traces(provider, content=content) if traced else None)
        await held.enter_async_context(parts.running())
        await parts.pool.wait_ready()
        lines: list[str] = []
        app = create_app(parts, access_log=AccessLog(lines.append, style=settings.log_format))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        http = await held.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://server")
        )
        seen = Watched(parts, fake, http, lines, exporter)
        seen.key = await seen.make_tenant("acme")
        lines.clear()
        yield seen


@pytest.fixture
async def app(tmp_path: Path, sqlite_template: Path) -> AsyncGenerator[Watched]:
    async with watched(tmp_path, sqlite_template, log_format="json") as app:
        yield app


@pytest.fixture
async def traced(tmp_path: Path, sqlite_template: Path) -> AsyncGenerator[Watched]:
    async with watched(tmp_path, sqlite_template, log_format="json", traced=True) as app:
        yield app
