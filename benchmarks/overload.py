"""What the gateway does under more load than there is room for, on an engine with a bounded number
of seats: three runs of one server.

    python -m benchmarks.overload            # `--seconds 5` for a short look

1. Ten times the capacity is offered by three tenants: those let in must be answered within twice
   the time that they need alone; the others are told when to come again; memory stays flat.
2. One tenant floods with as much while a quiet one asks for a fifth of the capacity: the quiet one
   must hardly notice.
3. A thousand clients send a part of a request and stop, stop reading, or leave: afterwards no task,
   socket or sequence in the engine may be left.

Load is offered at fixed times whatever the answers are (open loop), so a slow server is not spared.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

import aiohttp
import msgspec
import uvloop

from benchmarks.gateway_under_load import key_of
from benchmarks.result import Claim, show_claims, write_result
from benchmarks.serving import serving
from server.app import raise_file_limit

SEATS: Final = 16
ANSWER_S: Final = 0.8
CAPACITY: Final = SEATS / ANSWER_S  # answers a second
CLIENTS: Final = 1000  # that are slow or vanish
STAYS_S: Final = 5  # what the third run's server bears of a slow client
SETTLE_S: Final = 60.0
BODY: Final = {"model": "ttrl", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}
SETTINGS: Final = {
    "TTRL_MAX_IN_FLIGHT": str(SEATS),
    "TTRL_HEADER_TIMEOUT_S": str(STAYS_S),
    "TTRL_BODY_TIMEOUT_S": str(STAYS_S),
    "TTRL_UNREAD_TIMEOUT_S": str(STAYS_S),
    "TTRL_IDLE_TIMEOUT_S": "10",
}


@dataclass(slots=True)
class Outcome:
    """What became of the requests of one tenant."""

    ms: list[float] = field(default_factory=list[float])  # of those that were answered
    statuses: Counter[int] = field(default_factory=Counter[int])
    untold: int = 0  # refused without Retry-After, or not by 429 or 503

    def figures(self) -> dict[str, Any]:
        ordered = sorted(self.ms) or [0.0]
        return {
            "offered": self.statuses.total(),
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
            "p50_ms": round(ordered[len(ordered) // 2], 1),
            "p99_ms": round(ordered[int(0.99 * (len(ordered) - 1))], 1),
        }


class Load:
    """Offers requests to the gateway."""

    def __init__(self, session: aiohttp.ClientSession, url: str, engine: str) -> None:
        self._session = session
        self._url = url
        self._engine = engine

    async def offer(self, tenant: str, per_s: float, seconds: float) -> Outcome:
        """So many requests a second, at even times."""
        outcome, started = Outcome(), perf_counter()
        asking: set[asyncio.Task[None]] = set()
        for number in range(int(per_s * seconds)):
            await asyncio.sleep(max(0.0, started + number / per_s - perf_counter()))
            task = asyncio.create_task(self._ask(tenant, outcome))
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.gather(*asking)
        return outcome

    async def _ask(self, tenant: str, outcome: Outcome) -> None:
        headers = {"Authorization": f"Bearer {key_of(tenant)}"}
        started = perf_counter()
        url = f"{self._url}/v1/chat/completions"
        try:
            async with self._session.post(url, json=BODY, headers=headers) as response:
                await response.read()
        except aiohttp.ClientError:
            outcome.statuses[0] += 1
            outcome.untold += 1
            return
        outcome.statuses[response.status] += 1
        if response.status == 200:
            outcome.ms.append((perf_counter() - started) * 1e3)
        elif response.status not in (429, 503) or "Retry-After" not in response.headers:
            outcome.untold += 1

    async def counts(self) -> dict[str, float]:
        """What gateway and engine hold."""
        counts: dict[str, float] = {}
        for url in (self._url, self._engine):
            async with self._session.get(f"{url}/counts") as response:
                counts |= await response.json(content_type=None)
        return counts

    async def ready(self) -> None:
        """Wait until requests are served."""
        async with asyncio.timeout(60):
            while True:
                async with self._session.get(f"{self._url}/readyz") as response:
                    if response.status == 200:
                        return
                await asyncio.sleep(0.05)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self._url.removeprefix("http://").partition(":")
        return host, int(port)


async def _overloaded(load: Load, seconds: float) -> dict[str, Any]:
    """Ten times the capacity by three tenants, after a look at what an answer takes alone."""
    alone = await load.offer("other", 0.3 * CAPACITY, seconds)
    offers = [load.offer(tenant, 10 * CAPACITY / 3, seconds) for tenant in ("other", "another")]
    running = asyncio.gather(*offers, load.offer("flood", 10 * CAPACITY / 3, seconds))
    rss: list[float] = []
    while not running.done():
        await asyncio.wait((running,), timeout=max(0.5, seconds / 20))
        rss.append((await load.counts())["rss_mib"])
    outcomes = await running
    together = Outcome([ms for one in outcomes for ms in one.ms])
    for one in outcomes:
        together.statuses += one.statuses
        together.untold += one.untold
    return {
        "alone": alone.figures(),
        "offered_times_capacity": 10,
        "overloaded": together.figures() | {"refused_without_advice": together.untold},
        "answers_per_s": round(len(together.ms) / seconds, 1),
        "capacity_per_s": CAPACITY,
        "rss_mib": [round(one, 1) for one in rss],
    }


async def _flooded(load: Load, seconds: float) -> dict[str, Any]:
    """A quiet tenant alone, and beside one that floods."""
    alone = await load.offer("quiet", 0.2 * CAPACITY, seconds)
    beside, flood = await asyncio.gather(
        load.offer("quiet", 0.2 * CAPACITY, seconds), load.offer("flood", 10 * CAPACITY, seconds)
    )
    return {"alone": alone.figures(), "beside": beside.figures(), "flood": flood.figures()}


async def _vanishing(load: Load) -> dict[str, Any]:
    """A thousand clients that stop somewhere; a third of them stay, and do nothing more."""
    before = await _settled(load, {})
    left = await asyncio.gather(*(_vanish(load, number) for number in range(CLIENTS)))
    during = await load.counts()
    after = await _settled(load, before)
    for writer in left:
        if writer is not None:
            writer.transport.abort()
    return {"clients": CLIENTS, "before": before, "during": during, "after": after}


async def _settled(load: Load, wanted: dict[str, float]) -> dict[str, float]:
    """The counts when they are as wanted (none given: when they stand still), or after a minute."""
    last: dict[str, float] = {}
    until = perf_counter() + SETTLE_S
    while perf_counter() < until:
        counts = await load.counts()
        watched = ("tasks", "files", "seats", "waiting", "held")
        goal = wanted or last
        if goal and all(counts[name] <= goal[name] for name in watched):
            return counts
        last = counts
        await asyncio.sleep(1 if wanted else 6)
    return await load.counts()


async def _vanish(load: Load, number: int) -> asyncio.StreamWriter | None:
    reader, writer = await asyncio.open_connection(*load.address)
    whole, stream = (_request(BODY | {"stream": stream}) for stream in (False, True))
    points: Sequence[tuple[bytes, bool]] = (
        (b"", False),
        (whole[:60], False),
        (whole[:-9], False),
        (whole, False),
        (stream, True),
        (stream * 8, False),
    )
    sent, is_answered = points[number % len(points)]
    with suppress(ConnectionError):
        writer.write(sent)
        await writer.drain()
        if is_answered:
            await reader.read(1)
    if number % 7 % 3 == 0:
        writer.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
        return writer
    writer.transport.abort()
    return None


def _request(body: dict[str, Any]) -> bytes:
    data = msgspec.json.encode(body)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
    return f"{head}Authorization: Bearer {key_of('other')}\r\n\r\n".encode() + data


async def _measure(gateway: str, engine: str, seconds: float) -> dict[str, Any]:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=STAYS_S)
    async with aiohttp.ClientSession(connector=connector) as session:
        load = Load(session, gateway, engine)
        await load.ready()
        await load.offer("other", CAPACITY / 2, 2)  # warm
        overload = await _overloaded(load, seconds)
        flood = await _flooded(load, seconds)
    async with aiohttp.ClientSession() as session:
        load = Load(session, gateway, engine)
        return {"overload": overload, "flood": flood, "vanishing": await _vanishing(load)}


def _claims(data: dict[str, Any]) -> list[Claim]:
    overload, flood, vanishing = data["overload"], data["flood"], data["vanishing"]
    slower = overload["overloaded"]["p99_ms"] / overload["alone"]["p99_ms"]
    quiet = flood["beside"]["p99_ms"] / flood["alone"]["p99_ms"]
    refused = sum(n for status, n in flood["beside"]["statuses"].items() if status != "200")
    rss: list[float] = overload["rss_mib"]
    third = rss[: max(1, len(rss) // 3)]
    before, after = vanishing["before"], vanishing["after"]
    return [
        Claim("accepted_p99_of_unloaded", round(slower, 3), "times", "<=", 2),
        Claim(
            "refused_without_advice", overload["overloaded"]["refused_without_advice"], "", "==", 0
        ),
        Claim("rss_growth", round(max(rss) - max(third), 1), "MiB", "<=", 16),
        Claim("quiet_p99_beside_a_flood_of_alone", round(quiet, 3), "times", "<=", 1.5),
        Claim("quiet_refused_beside_a_flood", refused, "requests", "==", 0),
        *(
            Claim(f"leaked_{what}", max(0, after[name] - before[name]), "", "==", 0)
            for what, name in (("tasks", "tasks"), ("sockets", "files"), ("sequences", "held"))
        ),
    ]


def main() -> None:
    """Measure, write the result, and say it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload")
    parser.add_argument("--seconds", type=float, default=60, help="of each run under load")
    options = parser.parse_args()
    raise_file_limit(4 * CLIENTS)
    os.environ.update(SETTINGS)
    with ExitStack() as stack:
        data_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="ttrl-bench-"))
        engine = stack.enter_context(serving("benchmarks.busy_engine", str(SEATS), str(ANSWER_S)))
        gateway = stack.enter_context(serving("benchmarks.gateway_under_load", data_dir, engine))
        data = uvloop.run(_measure(gateway, engine, options.seconds))
    claims = _claims(data)
    setup = {"seats": SEATS, "answer_s": ANSWER_S, "seconds": options.seconds}
    path = write_result("overload", claims, {"engine": "stub"} | setup | data)
    show_claims(claims)
    print(path)


if __name__ == "__main__":
    main()
