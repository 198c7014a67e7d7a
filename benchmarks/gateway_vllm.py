"""What the gateway adds to a real engine: the same request straight to vLLM, on the bundled model,
and through the gateway, side by side in one run.

    python -m benchmarks.gateway_vllm

One client alternates between the two ways from request to request: an engine on two cores is some
ten times as uneven as the gateway is slow, and neighbours in time have the same of it. The added
latency is the median of the differences within pairs. With several clients rounds alternate. Every
number is the median over rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import aiohttp
import uvloop

from benchmarks.gateway_sides import QUESTION
from benchmarks.gateway_under_test import API_KEY
from benchmarks.result import Claim, show_claims, write_result
from benchmarks.serving import serving
from benchmarks.vllm_engine import IDENTITY

CLIENTS = 8  # of the rounds with several


@dataclass(frozen=True, slots=True)
class Way:
    """One of the two ways to the engine."""

    session: aiohttp.ClientSession
    url: str
    model: str

    async def whole(self) -> tuple[float, float]:
        """Milliseconds to the first byte and to the last, of an answer in one piece."""
        return await self._ask(stream=False)

    async def stream(self) -> tuple[float, float]:
        """Milliseconds to the first event and to the last, of a stream."""
        return await self._ask(stream=True)

    async def _ask(self, *, stream: bool) -> tuple[float, float]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": 32,
            "temperature": 0.0,  # both ways ask for the same work
        }
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        started = perf_counter()
        async with self.session.post(f"{self.url}/v1/chat/completions", json=body) as response:
            await response.content.readany()
            first = perf_counter() - started
            rest = await response.read()
            last = perf_counter() - started
            if response.status != 200 or b'"error"' in rest:
                raise RuntimeError(f"{response.status}: {rest[:300]!r}")
        return first * 1e3, last * 1e3


Ask = Callable[[Way], Awaitable[tuple[float, float]]]


Times = list[tuple[float, float]]  # of each request, to the first byte and to the last
Seen = dict[str, float]


def _percentiles(times: Times) -> Seen:
    first, last = (sorted(column) for column in zip(*times, strict=True))
    return {
        "first_byte_p50_ms": median(first),
        "p50_ms": median(last),
        "p99_ms": last[int(0.99 * (len(last) - 1))],
    }


async def _alone(ways: Sequence[Way], ask: Ask, requests: int) -> tuple[list[Seen], Seen]:
    """A round of one client that asks the same of both ways, one after the other; who is first
    alternates. The percentiles of each way, and of what the second adds to the first.
    """
    times: list[Times] = [[], []]
    for number in range(requests):
        for way in (0, 1) if number % 2 == 0 else (1, 0):
            times[way].append(await ask(ways[way]))
    seen = [_percentiles(one) for one in times]
    more = [(g[0] - d[0], g[1] - d[1]) for d, g in zip(*times, strict=True)]
    added = _percentiles(more) | {"p99_ms": seen[1]["p99_ms"] - seen[0]["p99_ms"]}
    return seen, added


async def _crowded(
    ways: Sequence[Way], ask: Ask, requests: int, *, is_odd: bool
) -> tuple[list[Seen], Seen]:
    """A round of several clients at a time, on one way after the other."""
    seen: list[Seen] = [{}, {}]
    for way in (1, 0) if is_odd else (0, 1):
        times: Times = []

        async def client(way: Way, times: Times) -> None:
            for _ in range(requests // CLIENTS):
                times.append(await ask(way))

        started = perf_counter()
        await asyncio.gather(*(client(ways[way], times) for _ in range(CLIENTS)))
        per_s = len(times) / (perf_counter() - started)
        seen[way] = _percentiles(times) | {"requests_per_s": per_s}
    return seen, {key: seen[1][key] - seen[0][key] for key in ("first_byte_p50_ms", "p50_ms")}


async def _compare(ways: Sequence[Way], ask: Ask, options: Any, *, alone: bool) -> dict[str, Any]:
    rounds: list[tuple[list[Seen], Seen]] = []
    for number in range(options.rounds):
        if alone:
            rounds.append(await _alone(ways, ask, options.requests))
        else:
            odd = number % 2 == 1
            rounds.append(await _crowded(ways, ask, options.requests, is_odd=odd))
    return {
        "direct": _medians([seen[0] for seen, _ in rounds]),
        "gateway": _medians([seen[1] for seen, _ in rounds]),
        "added": _medians([added for _, added in rounds]),
        "added_p50_ms_of_each_round": [round(added["p50_ms"], 3) for _, added in rounds],
        "rounds": options.rounds,
        "requests": options.requests,
        "concurrency": 1 if alone else CLIENTS,
    }


def _medians(rounds: Sequence[Seen]) -> Seen:
    return {key: round(median(one[key] for one in rounds), 3) for key in rounds[0]}


async def _ready(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(60):
        while True:
            async with session.get(f"{url}/readyz") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.05)


async def _measure(engine: str, gateway: str, options: argparse.Namespace) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        to_engine, to_gateway = [
            await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
            for headers in ({}, {"Authorization": f"Bearer {API_KEY}"})
        ]
        await _ready(to_gateway, gateway)
        ways = Way(to_engine, engine, IDENTITY), Way(to_gateway, gateway, "ttrl")
        for ask in (Way.whole, Way.stream):
            await _alone(ways, ask, options.warm_up)
        return {
            name: await _compare(ways, ask, options, alone=alone)
            for name, ask, alone in (
                ("whole", Way.whole, True),
                ("stream", Way.stream, True),
                ("whole_concurrent", Way.whole, False),
                ("stream_concurrent", Way.stream, False),
            )
        }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway_vllm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=64, help="of one round on one way")
    parser.add_argument("--warm-up", type=int, default=16)
    return parser.parse_args()


def main() -> None:
    """Measure, write the result, and say it."""
    options = _options()
    with ExitStack() as stack:
        data_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="ttrl-bench-"))
        started = stack.enter_context(serving("benchmarks.vllm_engine", f"{data_dir}/engine"))
        engine, _, identity = started.partition(" ")
        gateway = stack.enter_context(
            serving("benchmarks.gateway_under_test", data_dir, engine, identity)
        )
        data = uvloop.run(_measure(engine, gateway, options))
    added = data["whole"]["added"]["p50_ms"]
    first = data["stream"]["added"]["first_byte_p50_ms"]
    claims = [
        Claim("added_latency_p50_ms", added, "ms", "<=", 5),
        Claim("stream_added_first_event_p50_ms", first, "ms", "<=", 5),
    ]
    path = write_result("gateway-vllm", claims, {"engine": "vLLM"} | data)
    show_claims(claims)
    print(path)


if __name__ == "__main__":
    main()
