"""What the gateway adds: the same request straight to the engine and through the gateway, which
authenticates, checks, relays and logs it durably, side by side in one run.

    python -m benchmarks.gateway                     # a stub engine: only the way is measured
    python -m benchmarks.gateway --vllm              # a real one, on the bundled model

Rounds alternate between the two ways; every number is the median over rounds of the round's
percentile. The added latency is the difference of the two ways in the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import aiohttp
import uvloop

from benchmarks.gateway_under_test import API_KEY
from benchmarks.result import Claim, write_result
from benchmarks.serving import serving
from benchmarks.vllm_engine import IDENTITY

QUESTION = "What is 1234 + 4321? Work it out and put the answer in \\boxed{}."


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


async def _round(way: Way, ask: Ask, *, requests: int, concurrency: int) -> dict[str, float]:
    """Percentiles of one round on one way."""
    times: list[tuple[float, float]] = []

    async def client(number: int) -> None:
        for _ in range(number):
            times.append(await ask(way))

    started = perf_counter()
    await asyncio.gather(*(client(requests // concurrency) for _ in range(concurrency)))
    seconds = perf_counter() - started
    first, last = (sorted(column) for column in zip(*times, strict=True))
    return {
        "first_byte_p50_ms": median(first),
        "p50_ms": median(last),
        "p99_ms": last[int(0.99 * (len(last) - 1))],
        "requests_per_s": len(times) / seconds,
    }


async def _compare(
    direct: Way, gateway: Way, ask: Ask, *, rounds: int, requests: int, concurrency: int
) -> dict[str, Any]:
    """Alternate rounds; who begins alternates too."""
    seen: dict[str, list[dict[str, float]]] = {"direct": [], "gateway": []}
    for number in range(rounds):
        pairs = [("direct", direct), ("gateway", gateway)]
        for name, way in pairs if number % 2 == 0 else reversed(pairs):
            seen[name].append(await _round(way, ask, requests=requests, concurrency=concurrency))
    result: dict[str, Any] = {
        name: {key: round(median(one[key] for one in all_rounds), 3) for key in all_rounds[0]}
        for name, all_rounds in seen.items()
    }
    result["added"] = {
        key: round(
            median(g[key] - d[key] for g, d in zip(seen["gateway"], seen["direct"], strict=True)), 3
        )
        for key in ("first_byte_p50_ms", "p50_ms", "p99_ms")
    }
    return result | {"rounds": rounds, "requests": requests, "concurrency": concurrency}


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
        for way in ways:
            for ask in (Way.whole, Way.stream):
                await _round(way, ask, requests=options.warm_up, concurrency=1)
        rounds, requests = options.rounds, options.requests
        return {
            name: await _compare(
                *ways, ask, rounds=rounds, requests=requests, concurrency=concurrency
            )
            for name, ask, concurrency in (
                ("whole", Way.whole, 1),
                ("stream", Way.stream, 1),
                ("whole_concurrent", Way.whole, 8),
                ("stream_concurrent", Way.stream, 8),
            )
        }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=200, help="of one round on one way")
    parser.add_argument("--warm-up", type=int, default=50)
    parser.add_argument("--vllm", action="store_true", help="a real vLLM instead of the stub")
    return parser.parse_args()


def main() -> None:
    """Measure, write the result, and say it."""
    options = _options()
    with ExitStack() as stack:
        data_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="ttrl-bench-"))
        if options.vllm:
            started = stack.enter_context(serving("benchmarks.vllm_engine", f"{data_dir}/engine"))
            engine, _, identity = started.partition(" ")
        else:
            engine = stack.enter_context(serving("benchmarks.stub_engine"))
            identity = "/identity"
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
    name = "gateway-vllm" if options.vllm else "gateway"
    path = write_result(name, claims, {"engine": "vLLM" if options.vllm else "stub"} | data)
    for claim in claims:
        verdict = "holds" if claim.holds else "does NOT hold"
        print(f"{claim.name}: {claim.value} {claim.unit} {claim.op} {claim.target}: {verdict}")
    print(path)


if __name__ == "__main__":
    main()
