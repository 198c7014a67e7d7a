"""What an update costs on a GPU: trained tokens a second and peak memory of the trainer process,
for two Qwen2-shaped models with random weights, against the floor of their floating-point work.

    python -m benchmarks.gpu

The floor: LoRA needs 4 N operations a token, 2 N forward
and 2 N for the gradients of the inputs, and none for those of the frozen weights; attention's own
are left out. It is turned into seconds by what this device reaches in one large bfloat16 product,
not by its data sheet. The models are made here from their shapes; nothing is downloaded. Memory
is what the whole device gained, the allocator's cache and the CUDA context included. Without a
CUDA device it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter
from typing import Any, Protocol, TypeVar

import msgspec

from adapters.batch import (
    LearnerConfig,
    Open,
    Opened,
    Ready,
    Reply,
    Request,
    Score,
    Scored,
    Step,
    Stepped,
    TrainSample,
)
from benchmarks.result import ROOT, Claim, write_result

NO_DEVICE = "No CUDA device here: nothing is measured, and no result is written."
TARGET_SHARE = 0.3  # of the device's matmul rate
POLL_S = 0.005

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Shape:
    """A Qwen2 architecture with tied embeddings."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int = 151_936


@dataclass(frozen=True, slots=True)
class Load:
    """The batch of one update."""

    prompts: int = 8
    samples: int = 32  # of a prompt
    prompt_tokens: int = 150
    completion_tokens: int = 700
    updates: int = 3  # measured; one more warms up


SHAPES = (
    Shape("0.5B", 896, 4864, 24, 14, 2),
    Shape("1.5B", 1536, 8960, 28, 12, 2),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """The measured updates of one model."""

    name: str
    num_parameters: int
    tokens_per_s: float  # trained completion tokens, median over updates
    step_s: float
    peak_memory_gib: float
    num_tokens: int  # completion tokens of an update


class Meter(Protocol):
    """Memory in use, in bytes, by everything on the device."""

    def __call__(self) -> int: ...


def main() -> None:
    """Measure both models, where there is a CUDA device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print(NO_DEVICE)
        return
    rate = matmul_rate("cuda", 8192)
    load = Load()
    costs = [measure(shape, load, device="cuda", memory=_cuda_memory) for shape in SHAPES]
    made = claims(costs, rate)
    for cost in costs:
        print(cost)
    data = {
        "device": torch.cuda.get_device_name(),
        "matmul_tflops": round(rate / 1e12, 1),
        "load": asdict(load),
        "models": [{**asdict(cost), "floor_s": floor_s(cost, rate)} for cost in costs],
    }
    print(write_result("gpu", made, data))


def claims(costs: Sequence[Cost], rate: float) -> list[Claim]:
    """How near the updates come to their floor."""
    return [
        Claim(
            f"share of the device's matmul rate in an update, {cost.name}",
            round(floor_s(cost, rate) / cost.step_s, 3),
            "ratio",
            ">=",
            TARGET_SHARE,
        )
        for cost in costs
    ]


def floor_s(cost: Cost, rate: float) -> float:
    """Seconds that 4 N operations for each trained token take at `rate` operations a second."""
    return 4 * cost.num_parameters * cost.num_tokens / rate


def measure(shape: Shape, load: Load, *, device: str, memory: Meter) -> Cost:
    """Train a fresh adapter on random samples of a random model in a trainer process.

    The samples' log-probabilities are the model's own, so no clip takes work away.
    """
    with tempfile.TemporaryDirectory() as folder, watch(memory) as peak:
        before = memory()
        make_model(shape, Path(folder), device)
        dtype = "bfloat16" if device == "cuda" else "float32"
        command = ["serve", "--model", folder, "--device", device, "--dtype", dtype]
        with trainer(command) as ask:
            ready = ask(None, Ready)
            ask(Open(LearnerConfig()), Opened)
            samples = random_samples(shape, load)
            scored = ask(Score(samples, policy="base"), Scored).logprobs
            samples = [
                msgspec.structs.replace(sample, inference_logprobs=logprobs)
                for sample, logprobs in zip(samples, scored, strict=True)
            ]
            steps = [ask(Step(samples), Stepped) for _ in range(load.updates + 1)][1:]
        step_s = median(step.seconds for step in steps)
        return Cost(
            name=shape.name,
            num_parameters=ready.num_parameters,
            tokens_per_s=steps[0].num_tokens / step_s,
            step_s=step_s,
            peak_memory_gib=(peak() - before) / 2**30,
            num_tokens=steps[0].num_tokens,
        )


def make_model(shape: Shape, folder: Path, device: str) -> None:
    """Write a model with random weights and the bundled model's tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = Qwen2ForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(ROOT / "demo" / "model" / name, folder)
    del model
    if device == "cuda":
        torch.cuda.empty_cache()


def random_samples(shape: Shape, load: Load) -> list[TrainSample]:
    """Random ids; half of each group's samples are right, so that every one is trained on."""
    random = Random(0)

    def ids(number: int) -> list[int]:
        return [random.randrange(3, shape.vocab_size) for _ in range(number)]

    length = load.completion_tokens
    advantages = [0.5 if number % 2 else -0.5 for number in range(load.samples)]
    return [
        TrainSample(prompt, ids(length), [0.0] * length, [advantage] * length)
        for prompt in [ids(load.prompt_tokens) for _ in range(load.prompts)]
        for advantage in advantages
    ]


Ask = Callable[[Request | None, type[R]], R]


@contextmanager
def trainer(command: Sequence[str]) -> Generator[Ask[Any]]:
    """A trainer process for the block; call it with a request and the kind of reply to expect."""
    argv = [sys.executable, "-m", "adapters.training", *command]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, replies = process.stdin, process.stdout

        def ask(request: Request | None, kind: type[R]) -> R:
            if request is not None:
                requests.write(msgspec.json.encode(request) + b"\n")
                requests.flush()
            reply = msgspec.json.decode(replies.readline(), type=Reply)
            if not isinstance(reply, kind):
                raise RuntimeError(f"not {kind.__name__}: {reply}")
            return reply

        try:
            yield ask
        finally:
            requests.close()  # the end of its input ends it


@contextmanager
def watch(memory: Meter) -> Generator[Callable[[], int]]:
    """Poll the meter during the block; yields the largest reading so far."""
    largest = memory()
    done = threading.Event()

    def poll() -> None:
        nonlocal largest
        while not done.wait(POLL_S):
            largest = max(largest, memory())

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield lambda: largest
    finally:
        done.set()
        thread.join()


def matmul_rate(device: str, size: int) -> float:
    """Operations a second in the product of two bfloat16 matrices of size x size; best of ten."""
    import torch

    def synchronize() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    times: list[float] = []
    for _ in range(11):
        synchronize()
        started = perf_counter()
        torch.mm(a, a)
        synchronize()
        times.append(perf_counter() - started)
    return 2 * size**3 / min(times)


def _cuda_memory() -> int:
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free)


if __name__ == "__main__":
    main()
