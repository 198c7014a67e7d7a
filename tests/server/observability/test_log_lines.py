from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from server.config import Settings
from server.logs import REQUEST, configure_logging, harmless
from server.observability.access import AccessLog
from server.observability.requests import Observed
from tests.fakes.vllm import Fault

from .conftest import ADMIN_KEY, Watched, bearer, ids

FORGED = "x\n2026-01-01T00:00:00Z [info     ] all is well\r\x1b[2J\u2028\u202e"
Logs = Callable[[str], io.StringIO]


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Logs]:
    """Sets the process's logging up, and what it was back again."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def configure(style: Any) -> io.StringIO:
        stream = io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        configure_logging(Settings(data_dir=tmp_path, log_format=style), process="web")
        return stream

    yield configure
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


async def test_a_request_is_one_line_without_its_contents(app: Watched) -> None:
    answer = await app.ask("what is the secret of life")
    (line,) = app.lines
    said = json.loads(line)
    assert said["request_id"] in answer.json()["id"]
    assert said.keys() == {
        *("event", "level", "logger", "timestamp", "request_id", "tenant_id", "route", "status"),
        *("ms", "log_ms", "prompt_tokens", "completion_tokens", "version"),
    }
    assert (said["route"], said["status"], said["version"]) == ("chat", 200, 0)
    assert "secret" not in line


async def test_a_stream_says_when_it_began_and_whether_it_broke(app: Watched) -> None:
    app.fake.script("/v1/chat/completions", Fault(error_after=2))
    await app.ask(stream=True)
    said = json.loads(app.lines[0])
    assert said["failed"] is True
    assert said["first_byte_ms"] <= said["ms"]


async def test_probes_are_no_lines_and_scrapes_only_when_they_fail(app: Watched) -> None:
    await app.http.get("/healthz")
    await app.http.post("/readyz")
    await app.http.get("/metrics", headers=bearer(ADMIN_KEY))
    await app.http.get("/metrics", headers=bearer("wrong"))
    assert [json.loads(line)["status"] for line in app.lines] == [401]


async def test_a_traced_request_says_so(traced: Watched) -> None:
    await traced.ask()
    said = json.loads(traced.lines[0])
    assert said["trace_id"] == ids(traced.spans()["chat ttrl"])[0]


def test_a_line_can_be_read_on_a_terminal() -> None:
    lines: list[str] = []
    seen = Observed("chat", request_id="abc", status=200, version=3)
    AccessLog(lines.append, style="console").write(seen, 0.0123)
    assert lines[0].endswith("request_id=abc route=chat status=200 ms=12.3 version=3\n")


def test_nobody_who_reads_the_log_does_no_harm() -> None:
    def gone(_line: str) -> None:
        raise BrokenPipeError

    AccessLog(gone, style="json").write(Observed("chat", status=200), 0.1)


@pytest.mark.parametrize("style", ["console", "json"])
def test_no_line_can_be_forged(logs: Logs, style: str) -> None:
    stream = logs(style)
    logging.getLogger("a").warning("GET %s", FORGED, extra={"error": FORGED, "more": [FORGED]})
    structlog.get_logger("b").warning(FORGED, path=FORGED, deep={"a": {FORGED: FORGED}})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert not re.search("[\x00-\x1a\x1c-\x1f\u2028\u202e]|\x1b\\[2J", "".join(lines))


def test_a_traceback_cannot_pass_for_a_line(logs: Logs) -> None:
    stream = logs("console")
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("a").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert "failed" in first
    assert rest
    assert all(line.startswith("|") for line in rest)


@pytest.mark.parametrize("style", ["console", "json"])
def test_no_key_is_in_a_line(logs: Logs, style: str) -> None:
    stream = logs(style)
    key = "sk-ttrl-" + "s3cret" * 5
    logging.getLogger("a").warning("GET /v1/%s", key, extra={"headers": {"authorization": key}})
    logging.getLogger("a").warning("Authorization: Bearer hunter2")
    logging.getLogger("a").warning("key %s", "ttrl-admin-hunter2")
    assert "s3cret" not in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_line_says_which_request_it_is_about(logs: Logs, style: str) -> None:
    stream = logs(style)
    seen = Observed("chat", request_id="a1b2")
    seen.let_in(7, "acme")
    token = REQUEST.set(seen)
    logging.getLogger("a").warning("odd")
    structlog.get_logger("b").warning("odd")
    REQUEST.reset(token)
    logging.getLogger("a").warning("odd")
    named = ["a1b2" in line and "tenant_id" in line for line in stream.getvalue().splitlines()]
    assert named == [True, True, False]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_the_servers_own_mistake_can_be_found_in_the_log(
    app: Watched, logs: Logs, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def fail(*_args: object) -> None:
        raise RuntimeError("a bug")

    stream = logs("json")
    body = {"model": "ttrl", "max_tokens": 4, "messages": [{"role": "user", "content": "2+2"}]}
    monkeypatch.setattr("server.gateway.call.Call.rendering", fail)
    answer = await app.http.post(path, json=body, headers=bearer(app.key))
    said = next(json.loads(x) for x in stream.getvalue().splitlines() if "a bug" in x)
    assert answer.status_code == 500
    assert said["request_id"] == answer.headers["x-request-id"]
    assert json.loads(app.lines[-1])["request_id"] == said["request_id"]
    assert (answer.headers.get("request-id") is not None) == (path == "/v1/messages")


@given(st.text())
def test_harmless_text_is_one_visible_line(text: str) -> None:
    shown = harmless(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()  # no half of a surrogate pair
