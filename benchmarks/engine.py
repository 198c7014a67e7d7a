"""How fast vLLM on CPU samples with an adapter: the base model, LoRA with this project's plugin,
and LoRA as vLLM ships it, on the bundled model; and whether the plugin's numbers are right.

    python -m benchmarks.engine

Plugin on and plugin off need two engines, one after the other. In each, short rounds alternate
between the base model and an adapter, and who begins alternates too; a ratio is that of one round,
and what is claimed is the median over rounds. Right is: greedy answers and log-probabilities equal
to those of the shipped operations, and, in a batch of the base model and three adapters, to those
of each alone. The adapters are noise, so nothing flatters them; the identity adapter, on which a
tenant's traffic runs before its first promotion, is timed as well.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import aiohttp
import numpy as np
import uvloop
from safetensors.numpy import load_file, save_file

from benchmarks.live_engine import LiveEngine, live_engine
from benchmarks.result import Claim, show_claims, write_result
from server.config import Settings
from server.engine.client import BASE_NAME
from server.engine.identity import FILES, ensure_identity

NOISE = 0.02  # of B: other answers than the base model's, and still answers
NUM_ADAPTERS = 3
NUM_TOKENS = 64
SIZES = {16: 2, 64: 1, 256: 1}  # samples of a request -> requests of a measurement
SHIPPED_ROUNDS = 3  # slow, and far from any limit
TARGETS = {16: 0.7, 64: 0.8, 256: 0.8}
QUESTIONS = [f"What is {1234 + 617 * i} + {4321 + 389 * i}?" for i in range(8)]
TOLERANCE = 1e-3  # nats between two orders of adding up in float32
PLUGIN, SHIPPED = "plugin", "shipped"

Logprobs = list[tuple[str, float]]  # tokens and their log-probabilities


@dataclass(frozen=True, slots=True)
class Rate:
    """Output tokens in a second of wall clock, and in one of the worker's processor time."""

    wall: float
    cpu: float


async def _load(session: aiohttp.ClientSession, adapters: Sequence[Path]) -> None:
    for adapter in adapters:
        body = {"lora_name": adapter.name, "lora_path": str(adapter)}
        async with session.post("/v1/load_lora_adapter", json=body) as response:
            response.raise_for_status()


async def _ask(session: aiohttp.ClientSession, **body: Any) -> dict[str, Any]:
    async with session.post("/v1/completions", json=body) as response:
        response.raise_for_status()
        return await response.json()


async def _rate(
    session: aiohttp.ClientSession, engine: LiveEngine, model: str, n: int, requests: int
) -> Rate:
    cpu_s, started = engine.cpu_s(), perf_counter()
    tokens = 0
    for number in range(requests):
        answer = await _ask(
            session,
            model=model,
            prompt=QUESTIONS[number % len(QUESTIONS)],
            n=n,
            max_tokens=NUM_TOKENS,
            temperature=1.0,
            ignore_eos=True,
        )
        tokens += int(answer["usage"]["completion_tokens"])
    if tokens != requests * n * NUM_TOKENS:
        raise RuntimeError(f"{tokens} tokens of {requests} requests for {n} x {NUM_TOKENS}")
    return Rate(tokens / (perf_counter() - started), tokens / (engine.cpu_s() - cpu_s))


async def _throughput(
    session: aiohttp.ClientSession, engine: LiveEngine, adapters: Sequence[str], rounds: int
) -> dict[str, dict[str, Any]]:
    """Rates and ratios by adapter and size; round 0 warms up and does not count."""
    models = [BASE_NAME, *adapters]
    seen: list[tuple[int, dict[str, Rate]]] = []
    for number in range(rounds + 1):
        for n, requests in SIZES.items():
            order = models if number % 2 else models[::-1]
            rates = {model: await _rate(session, engine, model, n, requests) for model in order}
            if number:
                seen.append((n, rates))
    return {
        adapter: {
            f"n={n}": _summary([(r[BASE_NAME], r[adapter]) for size, r in seen if size == n])
            for n in SIZES
        }
        for adapter in adapters
    }


def _summary(pairs: Sequence[tuple[Rate, Rate]]) -> dict[str, Any]:
    """Medians over rounds of the rates of base and LoRA, and of their ratio in a round."""
    base, lora = zip(*pairs, strict=True)
    ratios = [after.wall / before.wall for before, after in pairs]
    cpu_ratios = [after.cpu / before.cpu for before, after in pairs]
    return {
        "base_tokens_per_s": round(median(rate.wall for rate in base)),
        "lora_tokens_per_s": round(median(rate.wall for rate in lora)),
        "ratio": round(median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "base_tokens_per_cpu_s": round(median(rate.cpu for rate in base)),
        "lora_tokens_per_cpu_s": round(median(rate.cpu for rate in lora)),
        "cpu_ratio": round(median(cpu_ratios), 3),
        "cpu_ratios": [round(ratio, 3) for ratio in cpu_ratios],
    }


async def _greedy(session: aiohttp.ClientSession, model: str) -> list[Logprobs]:
    answer = await _ask(
        session,
        model=model,
        prompt=QUESTIONS,
        max_tokens=NUM_TOKENS,
        temperature=0.0,
        ignore_eos=True,
        logprobs=1,
    )
    found = [choice["logprobs"] for choice in answer["choices"]]
    return [list(zip(one["tokens"], one["token_logprobs"], strict=True)) for one in found]


def difference(one: Sequence[Logprobs], other: Sequence[Logprobs]) -> float:
    """The largest difference of log-probabilities, in nats, of the same greedy answers.

    Where two answers part, both were the best there: only what comes before is compared, and the
    two tokens where they part, whose difference must be as small.
    """
    largest = 0.0
    for answer, reference in zip(one, other, strict=True):
        for (token, logprob), (other_token, other_logprob) in zip(answer, reference, strict=True):
            largest = max(largest, abs(logprob - other_logprob))
            if token != other_token:
                break
    return largest


async def _measure(
    settings: Settings, identity: Path, adapters: Sequence[Path], rounds: int
) -> dict[str, Any]:
    data: dict[str, Any] = {}
    alone: dict[str, dict[str, list[Logprobs]]] = {}
    names = [BASE_NAME, *(adapter.name for adapter in adapters)]
    for kind in (PLUGIN, SHIPPED):
        timeout = aiohttp.ClientTimeout(total=600)
        async with (
            live_engine(settings, plugin=kind == PLUGIN) as engine,
            aiohttp.ClientSession(engine.url, timeout=timeout) as session,
        ):
            await _load(session, [identity, *adapters])
            alone[kind] = {name: await _greedy(session, name) for name in names}
            mixed = await asyncio.gather(*(_greedy(session, name) for name in names))
            number = rounds if kind == PLUGIN else min(rounds, SHIPPED_ROUNDS)
            timed = [adapters[0].name, identity.name]
            lora, unadapted = (await _throughput(session, engine, timed, number)).values()
            data[kind] = {**lora, "identity": unadapted}
            data[kind]["mixed_batch_difference"] = {
                name: difference(found, alone[kind][name])
                for name, found in zip(names, mixed, strict=True)
            }
    data["shipped_difference"] = {
        name: difference(alone[PLUGIN][name], alone[SHIPPED][name]) for name in names
    }
    data["adapter_difference"] = {  # that the adapters do something, or all would be equal
        name: difference(alone[PLUGIN][name], alone[PLUGIN][BASE_NAME]) for name in names[1:]
    }
    return data


def noisy_adapters(identity: Path, folder: Path, number: int) -> list[Path]:
    """Copies of the identity adapter with noise in B, each another one."""
    weights = next(name for name in FILES if name.endswith(".safetensors"))
    made: list[Path] = []
    for seed in range(number):
        adapter = folder / f"noise-{seed}"
        shutil.copytree(identity, adapter)
        random = np.random.default_rng(seed)
        tensors = load_file(identity / weights)
        for name in sorted(tensors):
            if "lora_B" in name:
                noise = NOISE * random.standard_normal(tensors[name].shape)
                tensors[name] = noise.astype(tensors[name].dtype)
        save_file(tensors, adapter / weights, metadata={"format": "pt"})
        made.append(adapter)
    return made


def claims(data: dict[str, Any]) -> list[Claim]:
    """What is claimed of these measurements."""
    names = {n: f"wall throughput of LoRA, of the base model's, n = {n}" for n in SIZES}
    fast = [
        Claim(names[n], data[PLUGIN][f"n={n}"]["ratio"], "ratio", ">=", target)
        for n, target in TARGETS.items()
    ]
    shipped, mixed = data["shipped_difference"], data[PLUGIN]["mixed_batch_difference"]
    right = [
        ("greedy log-probabilities, plugin against shipped operations", shipped),
        ("greedy log-probabilities, base and 3 adapters in one batch against each alone", mixed),
    ]
    fault = data[SHIPPED]["mixed_batch_difference"][BASE_NAME]
    return [
        *fast,
        *(Claim(name, max(d.values()), "nats", "<=", TOLERANCE) for name, d in right),
        Claim("the base model in that batch, shipped operations: wrong", fault, "nats", ">=", 0.01),
    ]


async def _main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # No slot is left empty: the shipped operations' fault would not show.
        slots = NUM_ADAPTERS + 1
        settings = Settings(model=options.model, data_dir=Path(folder), engine_max_loras=slots)
        identity = await ensure_identity(settings)
        adapters = noisy_adapters(identity, Path(folder), NUM_ADAPTERS)
        data = await _measure(settings, identity, adapters, options.rounds)
    data |= {"rounds": options.rounds, "engine_threads": settings.engine_threads}
    made = claims(data)
    show_claims(made)
    print(write_result("engine", made, data))


def main() -> None:
    """Run it on the bundled model, or another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--model", default="demo/model")
    uvloop.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
