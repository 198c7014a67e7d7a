from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gateway_profile import step_of
from benchmarks.gateway_report import added, added_to_limit, growth, ratio
from benchmarks.load import Connection, Plan, carry_out
from benchmarks.peers.relay.__main__ import Journal
from benchmarks.stub_engine import Connection as EngineConnection
from benchmarks.stub_engine import StubEngine

BODY = {"model": "identity", "messages": [{"role": "user", "content": "2+2?"}]}


class _Wire:
    """What a protocol writes."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def _seen(per_s: float, p50: float) -> dict[str, Any]:
    return {"per_s": per_s, "quantiles": [0.5], "whole_ms": [p50]}


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    rounds = [
        {"gateway": _seen(50, 0), "relay": _seen(100, 0)},
        {"gateway": _seen(6, 0), "relay": _seen(10, 0)},
        {"gateway": _seen(90, 0), "relay": _seen(100, 0)},
    ]
    assert ratio(rounds, "gateway", "relay") == 0.6


def test_what_is_added_is_a_rounds_own_difference() -> None:
    rounds = [{"gateway": _seen(1, ours), "direct": _seen(1, alone)} for ours, alone in ((3, 1),)]
    assert added(rounds, "gateway", 0.5) == 2


def test_the_limit_is_a_relay_that_syncs() -> None:
    each = {"gateway": 4.0, "relay_journal": 3.0, "direct": 1.0}
    assert added_to_limit([{name: _seen(1, p50) for name, p50 in each.items()}]) == 1.5


async def test_a_journal_keeps_what_it_got_in_order(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"))
    await asyncio.gather(*(journal.keep(str(number).encode()) for number in range(10)))
    assert (tmp_path / "journal").read_text() == "0123456789"


def test_memory_that_stays_after_the_warm_up_does_not_grow() -> None:
    assert growth([(1_000, 90.0), (20_000, 120.0), (60_000, 120.0), (100_000, 120.0)]) == 0


def test_memory_that_grows_is_told_by_100_000_requests() -> None:
    assert growth([(5_000, 50.0), (40_000, 100.0), (50_000, 110.0)]) == 100


@pytest.mark.parametrize(
    ("stack", "step"),
    [
        ("uvicorn/server.py:run;gateway/engine_http.py:data_received", "engine hop"),
        ("server/gateway/recorder.py:record;asyncio/timeouts.py:x", "log: entry, hand-over"),
        ("server/gateway/recorder.py:_commit_all", "log: group commit"),
        ("lib/json.py:loads", "event loop and the rest"),
    ],
)
def test_the_innermost_known_frame_decides_the_step(stack: str, step: str) -> None:
    assert step_of(stack) == step


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_ends_where_http_says_however_it_comes(size: int) -> None:
    connection = Connection()
    connection.connection_made(_Wire())  # pyright: ignore[reportArgumentType]
    for answer, is_good in (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", True),
        (b"HTTP/1.1 200 OK\r\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\n6\r\nbroken\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}", False),
    ):
        asked = connection.ask(b"", 0.0)
        for start in range(0, len(answer), size):
            assert not asked.done()
            connection.data_received(answer[start : start + size])
        assert (await asked).is_good == is_good


async def test_a_connection_that_breaks_ends_the_wait() -> None:
    connection = Connection()
    connection.connection_made(_Wire())  # pyright: ignore[reportArgumentType]
    asked = connection.ask(b"", 0.0)
    connection.connection_lost(None)
    assert not (await asked).is_good
    assert not (await connection.ask(b"", 0.0)).is_good


@pytest.mark.parametrize("rate", [None, 200.0])
async def test_the_load_is_answered_by_the_stub_engine(rate: float | None) -> None:
    loop, engine = asyncio.get_running_loop(), StubEngine()
    server = await loop.create_server(lambda: EngineConnection(engine, loop), "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        bodies = [BODY, BODY | {"stream": True}, BODY | {"stream": True, "seed": 1}]
        plan = Plan(url, "none", bodies, clients=3, rate=rate, seconds=0.5, warm_up_s=0.0)
        seen = await carry_out(plan)
    assert seen.failed == 0
    assert seen.answered >= 1


async def test_the_stub_engine_lists_what_was_loaded() -> None:
    wire, connection = _Wire(), EngineConnection(StubEngine(), asyncio.get_running_loop())
    connection.connection_made(wire)  # pyright: ignore[reportArgumentType]
    body = b'{"lora_name":"t1--v1","lora_path":"/x"}'
    head = b"POST /v1/load_lora_adapter HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    request = head + body
    connection.data_received(request[:20])
    connection.data_received(request[20:] + b"GET /v1/models HTTP/1.1\r\n\r\n")
    last = json.loads(wire.written.rpartition(b"\r\n\r\n")[2])
    assert [card["id"] for card in last["data"]] == ["base", "t1--v1"]
