"""The relay in front of an engine that may answer anything at all, in pieces of any size: the
client gets a whole answer or a clear error, never a break in the middle without a word, and nothing
is told as complete that was not logged before.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message
from ttrl_client.types import TenantSettings

from server.config import Settings
from server.db.log import LogEntry
from server.errors import TTRLError
from server.gateway.call import Call
from server.gateway.relay import relay_stream, relay_whole
from server.observability.requests import Observed
from server.spool.entries import encode
from server.tenants import Caller, VersionRef
from tests.fuzz.bodies import VALID, junk
from tests.fuzz.cases import fuzzed
from tests.fuzz.test_parsing import PARSERS

ENGINE_NAME = "t1-adder--v1"
VERSION = VersionRef(1, ENGINE_NAME, "/adapters/t1/v1", "adder--v1")
CALLER = Caller(1, "adder", VERSION, "tenant-1", TenantSettings())
ENDS = (b"data: [DONE]\n\n", b"event: response.completed\n", b"event: message_stop\n")
ENDS_CUT = b"event: response.incomplete\n"
FAILED = (b'data: {"error":', b"event: error\n")

pieces = st.fixed_dictionaries(
    {},
    optional={
        "content": st.none() | st.text(max_size=5) | junk,
        "reasoning": st.none() | st.text(max_size=5),
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": st.integers(-1, 2) | junk,
                    "id": st.none() | st.just("c1") | junk,
                    "function": st.fixed_dictionaries(
                        {}, optional={"name": junk, "arguments": st.just("{") | junk}
                    )
                    | junk,
                },
            )
            | junk,
            max_size=2,
        ),
    },
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 2) | junk,
        "delta": pieces,
        "message": pieces,
        "text": st.text(max_size=5),
        "finish_reason": st.sampled_from([None, "stop", "length", "tool_calls", "odd"]) | junk,
        "stop_reason": st.sampled_from([None, "x", 7]),
        "logprobs": st.none() | st.just({"content": [{"token": "a"}]}) | junk,
    },
)
chunks = st.fixed_dictionaries(
    {"choices": st.lists(choices, max_size=3)},
    optional={
        "id": st.just("chatcmpl-x") | junk,
        "model": st.just(ENGINE_NAME) | junk,
        "usage": st.none() | st.just({"prompt_tokens": 1, "completion_tokens": 2}) | junk,
        "error": st.just({"message": f"bad {ENGINE_NAME}", "code": 500}) | junk,
    },
)


def _bytes(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


events = (
    chunks.map(lambda chunk: b"data: " + _bytes(chunk) + b"\n\n")
    | chunks.map(lambda chunk: b"data: " + _bytes(chunk) + b"\r\n\r\n")
    | st.sampled_from([b"data: [DONE]\n\n", b": ping\n\n", b"\n\n", b"event: x\ndata: {}\n\n"])
    | st.binary(max_size=12)
)
streams = st.lists(events, max_size=6).map(b"".join)


class Engine:
    """Answers these bytes, in these pieces."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = data
        self._sizes = sizes
        self._at = self._number = 0
        self.at_eof = False

    async def readany(self) -> bytes:
        size = self._sizes[self._number % len(self._sizes)]
        data = self._data[self._at : self._at + size]
        self._at, self._number = self._at + size, self._number + 1
        return data

    async def read(self, limit: int) -> bytes:
        return self._data[:limit]

    def close(self) -> None:
        """Nothing to close."""

    @asynccontextmanager
    async def post(self, *_: object, **__: object) -> AsyncGenerator[Engine]:
        yield self


class Log:
    """Takes what can be stored."""

    def __init__(self) -> None:
        self.statuses: list[str] = []

    async def record(self, entry: LogEntry) -> None:
        encode(entry)
        self.statuses.append(entry.status)


def call_on(path: str, engine: Engine, log: Log, *, stream: bool) -> Call:
    body = VALID[path] | {"stream": stream}
    body = {k: v for k, v in body.items() if stream or k != "stream_options"}
    deps = SimpleNamespace(settings=Settings(), upstream=engine, recorder=log)
    asked = PARSERS[path](_bytes(body), Settings())
    started = datetime(2026, 1, 1, tzinfo=UTC)
    return Call(
        cast(Any, deps), CALLER, asked, VERSION, 0.0, started, seen=Observed(request_id="r")
    )


async def relayed(path: str, engine: Engine, log: Log, *, stream: bool) -> list[Message] | None:
    """What the client got; None for an error before the first byte."""
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    call = call_on(path, engine, log, stream=stream)
    try:
        await (relay_stream if stream else relay_whole)(call, receive, send)
    except TTRLError as error:
        refusal = error
    else:
        return sent
    assert 400 <= refusal.status_code < 600
    assert ENGINE_NAME not in refusal.message
    assert sent == []
    return None


@pytest.fixture(scope="module")
def runner() -> Any:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.parametrize("path", PARSERS)
def test_a_stream_of_anything(path: str, runner: asyncio.Runner) -> None:
    @fuzzed(40)
    @given(streams, st.booleans(), st.lists(st.integers(1, 40), min_size=1, max_size=4))
    def a_stream_of_anything(data: bytes, is_done: bool, sizes: list[int]) -> None:
        data += b"\n\ndata: [DONE]\n\n" if is_done else b""
        log = Log()
        sent = runner.run(relayed(path, Engine(data, sizes), log, stream=True))
        if sent is None:
            assert log.statuses == []
            return
        assert [m["type"] for m in sent] == [
            "http.response.start",
            *["http.response.body"] * (len(sent) - 1),
        ]
        assert [m.get("more_body", False) for m in sent[1:]] == [*[True] * (len(sent) - 2), False]
        body = b"".join(m["body"] for m in sent[1:])
        last = sent[-1]["body"]
        is_told = any(end in last for end in (*ENDS, ENDS_CUT))
        assert is_told == ("ok" in log.statuses)
        assert is_told != last.startswith(FAILED)
        assert body.endswith(b"\n\n")
        assert len(log.statuses) == 1

    a_stream_of_anything()


@pytest.mark.parametrize("path", PARSERS)
def test_a_body_of_anything(path: str, runner: asyncio.Runner) -> None:
    bodies = chunks.map(_bytes) | junk.map(_bytes) | st.binary(max_size=20)

    @fuzzed(20)
    @given(bodies, st.lists(st.integers(1, 40), min_size=1, max_size=4))
    def a_body_of_anything(data: bytes, sizes: list[int]) -> None:
        log = Log()
        sent = runner.run(relayed(path, Engine(data, sizes), log, stream=False))
        assert log.statuses == ([] if sent is None else ["ok"])
        if sent is not None:
            json.loads(sent[1]["body"])
            assert int(dict(sent[0]["headers"])[b"content-length"]) == len(sent[1]["body"])

    a_body_of_anything()
