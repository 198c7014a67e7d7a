"""One request that was let in: what was asked, who answers, and the log row that comes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from types import MappingProxyType
from typing import Any, Literal

import msgspec
from starlette.types import Receive

from server.db.log import LogEntry, fingerprint
from server.errors import LogUnavailable
from server.gateway.client_side import Watch, watched
from server.gateway.deps import GatewayDeps
from server.gateway.engine_http import EngineResponse
from server.gateway.parsing import Asked
from server.gateway.rendering import Names, Rendering
from server.gateway.transcript import Transcript
from server.leaving import Leaving
from server.observability.requests import Observed
from server.tenants import Caller, VersionRef

logger = logging.getLogger(__name__)

ID_PREFIXES = {
    "chat": "chatcmpl-",
    "completions": "cmpl-",
    "responses": "resp_",
    "messages": "msg_",
}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"  # the engine's routes

Status = Literal["ok", "aborted", "error"]


@dataclass(slots=True)
class Call:
    """A request on its way. `started` is in seconds of the performance counter."""

    deps: GatewayDeps
    caller: Caller
    asked: Asked
    version: VersionRef
    started: float
    created_at: datetime
    quota_headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    transcript: Transcript = field(default_factory=Transcript)
    first_byte_ms: float | None = None
    seen: Observed = field(default_factory=Observed)
    leaving: Leaving | None = None
    digest: str | None = None  # of the prompt: its fingerprint, once somebody has asked for it

    @property
    def request_id(self) -> str:
        """What the engine and the logs call it."""
        return self.seen.request_id

    @property
    def answer_id(self) -> str:
        """The answer's id. Of completions, vLLM makes the same one from the request id."""
        return ID_PREFIXES[self.asked.route] + self.request_id

    def rendering(self) -> Rendering:
        """Words the engine's answer for the client; one for each answer."""
        return self.asked.render(
            Names(
                answer_id=self.answer_id,
                engine_name=self.version.engine_name,
                served_name=self.asked.model,
                label=self.version.label,
                created=int(self.created_at.timestamp()),
            )
        )

    def open(
        self, changes: Mapping[str, Any] = MappingProxyType({}), *, suffix: str = ""
    ) -> AbstractAsyncContextManager[EngineResponse]:
        """Ask an engine; see `Upstream.post`. Of the client's headers nothing is passed on but its
        trace, where tracing is on.

        Args:
            changes: fields that the engine gets beside, or instead of, the client's.
            suffix: makes the request's id another one, where the engine is asked again.
        """
        body = {
            **self.asked.upstream,
            **changes,
            "model": self.version.engine_name,
            "cache_salt": self.caller.cache_salt,
        }
        headers = {"Content-Type": "application/json", "X-Request-Id": self.request_id + suffix}
        path = COMPLETIONS if self.asked.route == "completions" else CHAT
        asking = self.deps.upstream.post(
            path,
            msgspec.json.encode(body),
            headers,
            self.version,
            tenant=self.caller.cache_salt,
        )
        if self.asked.store:  # when the request is on its way: there is time while the engine works
            asyncio.get_running_loop().call_soon(self._fingerprint)
        trace = self.seen.trace
        return asking if trace is None else trace.engine_call(asking, headers)

    def watched(self, receive: Receive) -> Watch:
        """A block in which the client is watched, and the time; see `client_side.watched`."""
        return watched(receive, self.deps.settings.request_timeout_s, self.leaving)

    def headers(self, content_type: bytes) -> list[tuple[bytes, bytes]]:
        """The response's headers."""
        headers = [
            (b"content-type", content_type),
            (b"x-request-id", self.answer_id.encode()),
            (b"x-ttrl-adapter", self.version.label.encode()),
            *self.quota_headers,
        ]
        if self.asked.route == "messages":
            headers.append((b"request-id", self.answer_id.encode()))  # Anthropic's name for it
        return headers

    def saw_first_byte(self) -> None:
        """Note when the first answer came."""
        if self.first_byte_ms is None:
            self.first_byte_ms = (perf_counter() - self.started) * 1e3

    async def record(self, status: Status) -> None:
        """Log the call, unless the client asked not to; returns when it is on a disk.

        Raises:
            LogUnavailable: it is not stored.
        """
        if not self.asked.store:
            return
        entry, trace, began = self._entry(status), self.seen.trace, perf_counter()
        with nullcontext() if trace is None else trace.log_commit():
            await self.deps.recorder.record(entry)
        self.seen.log_ms = (perf_counter() - began) * 1e3
        self.seen.logged_as = entry.reason or "eligible"

    async def record_failure(self, status: Status) -> None:
        """Log a call whose client is already being told, or gone: a broken log adds nothing."""
        try:
            await self.record(status)
        except LogUnavailable as error:
            logger.warning("%s call not logged: %s", status, error.message)

    def sum_up(self) -> None:
        """Note what the request came to: for metrics, the line about it, and its trace."""
        seen, usage = self.seen, self.transcript.usage
        seen.version = self.version.number
        seen.prompt_tokens = usage.prompt_tokens
        seen.completion_tokens = usage.completion_tokens
        seen.first_byte_ms = self.first_byte_ms if self.asked.stream else None
        if seen.trace is not None:
            seen.trace.asked(self.asked.model, self.asked.params, self.asked.prompt)
            seen.trace.answered(self.answer_id, self.version.label, self.transcript.answers())

    def _fingerprint(self) -> str:
        if self.digest is None:
            self.digest = fingerprint(self.asked.prompt)
        return self.digest

    def _entry(self, status: Status) -> LogEntry:
        asked, usage = self.asked, self.transcript.usage
        reason = asked.reason if status == "ok" else status
        return LogEntry(
            id=self.answer_id,
            tenant_id=self.caller.tenant_id,
            route=asked.route,
            prompt=asked.prompt,
            fingerprint=self._fingerprint(),
            eligible=reason is None,
            reason=reason,
            params=asked.params,
            adapter_version=self.version.number,
            stream=asked.stream,
            status=status,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            latency_ms=(perf_counter() - self.started) * 1e3,
            first_byte_ms=self.first_byte_ms,
            created_at=self.created_at,
            answers=self.transcript.answers(),
            trace_id=self.seen.trace_id,
            span_id=None if self.seen.trace is None else self.seen.trace.span_id,
        )
