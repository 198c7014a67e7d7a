"""A trainer without a model: its only weight is a skill, and each update raises it.

The skill lies in real LoRA files, so that stores, engines and other trainers find it again. Its
log-probabilities are those that the fake engine makes up.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from adapters import batch
from server.adaptation.tools import Reply
from server.errors import TrainerFailed

RANK, ALPHA = 16, 32
MODULE = "base_model.model.layer"


def write_adapter(folder: Path, skill: float) -> None:
    """A LoRA adapter of one layer whose B holds the skill."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {
        f"{MODULE}.lora_A.weight": np.ones((RANK, 2), np.float32),
        f"{MODULE}.lora_B.weight": np.full((2, RANK), skill, np.float32),
    }
    save_file(tensors, folder / "adapter_model.safetensors")


def read_skill(folder: Path) -> float:
    tensors = load_file(folder / "adapter_model.safetensors")
    return float(tensors[f"{MODULE}.lora_B.weight"][0, 0])


def engine_logprobs(token_ids: Sequence[int]) -> list[float]:
    """What the fake engine says of a completion with choice index 0."""
    return [-((31 * token + 7 * at) % 97) / 64 for at, token in enumerate(token_ids)]


class FakeTrainer:
    """Raises the skill by `gain` per update. `on_ask` sees each request first, and may raise; the
    `hold_from`-th request (from 1) and all after it wait for `go_on`.
    """

    def __init__(self, *, gain: float = 0.1, base_shift: float = 0.2) -> None:
        self.gain = gain
        self.base_shift = base_shift
        self.asked: list[batch.Request] = []
        self.fail_next: list[type[Any]] = []  # request types whose next request kills the trainer
        self.on_ask: Callable[[batch.Request], None] = lambda _: None
        self.hold_from: int | None = None
        self.held, self.go_on = asyncio.Event(), asyncio.Event()
        self.skill: float | None = None

    async def ask(self, request: batch.Request, expect: type[Reply]) -> Reply:
        self.asked.append(request)
        self.on_ask(request)
        if self.hold_from is not None and len(self.asked) >= self.hold_from:
            self.held.set()
            await self.go_on.wait()
        if type(request) in self.fail_next:
            self.fail_next.remove(type(request))
            self.skill = None
            raise TrainerFailed("the trainer ended with status -9")
        reply = self._answer(request)
        assert isinstance(reply, expect)
        return reply

    def count(self, kind: type[Any]) -> int:
        return sum(isinstance(request, kind) for request in self.asked)

    def _answer(self, request: batch.Request) -> batch.Reply:
        match request:
            case batch.Open(_, adapter_dir, state_dir):
                if state_dir is not None and not Path(state_dir).is_dir():
                    raise TrainerFailed(f"Open: OSError: {state_dir}")
                self.skill = 0.0 if adapter_dir is None else read_skill(Path(adapter_dir))
                return batch.Opened(1)
            case batch.Close():
                self.skill = None
                return batch.Closed()
            case batch.Step(samples):
                return self._step(samples)
            case batch.Save(adapter_dir, state_dir):
                assert self.skill is not None
                write_adapter(Path(adapter_dir), self.skill)
                assert state_dir is not None
                Path(state_dir).mkdir(parents=True, exist_ok=True)
                return batch.Saved([adapter_dir])
            case batch.Average(_, adapter_dirs, adapter_dir):
                skills = [read_skill(Path(folder)) for folder in adapter_dirs]
                write_adapter(Path(adapter_dir), sum(skills) / len(skills))
                return batch.Saved([adapter_dir])
            case batch.Score(samples, policy):
                shift = self.base_shift if policy == "base" else 0.0
                return batch.Scored(
                    [[p - shift for p in engine_logprobs(s.completion_ids)] for s in samples]
                )
            case batch.Tokenize():
                return batch.Tokenized([])

    def _step(self, samples: Sequence[batch.TrainSample]) -> batch.Stepped:
        assert self.skill is not None, "a step needs an opened adapter"
        assert samples, "a step needs samples"
        self.skill += self.gain
        num_tokens = sum(len(sample.completion_ids) for sample in samples)
        return batch.Stepped(0.1, 1.0, len(samples), num_tokens, 0.001, 0.0, 0.0, 1.2, None, 0.01)
