"""A tiny random Qwen2 on disk: the trainer's tests take seconds with it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.batch import TrainSample

NUM_IDS = 64
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'][0] }}>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<a>", "<u>", *"abcdefghijklmnopqrstuvwxyz0123456789+=? "]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split("", "isolated")
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.add_special_tokens({"additional_special_tokens": ["<a>", "<u>"]})
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 of hidden size 32 with 2 layers, float32, and a tokenizer of letters."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.set_num_threads(1)  # more only wait for each other on matrices this small
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=NUM_IDS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.3,  # sharp enough that log-probabilities differ between tokens
        dtype="float32",
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    _write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def float32_base(model_dir: Path) -> Any:
    """The base model as it is served in float32."""
    from adapters.training.base_model import load_base

    return load_base(str(model_dir), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def bfloat16_base(model_dir: Path) -> Any:
    """The base model as it is served in bfloat16."""
    from adapters.training.base_model import load_base

    return load_base(str(model_dir), device="cpu", dtype="bfloat16")


@pytest.fixture
def policy(float32_base: Any) -> Iterator[Any]:
    """A policy with no adapter open, closed afterwards."""
    from adapters.training.policy import Policy

    policy = Policy(float32_base)
    yield policy
    policy.close()


@pytest.fixture
def samples() -> list[TrainSample]:
    """Twelve samples of many lengths, with advantages of both signs; six and five of them have one
    prompt (which is computed once for all), one stands alone. Two say what another says, and one
    goes on differently after the same beginning.
    """
    rng = random.Random(7)
    prompts = [[rng.randrange(NUM_IDS) for _ in range(size)] for size in (3, 6, 4)]
    batch: list[TrainSample] = []
    for index in range(12):
        completion = [rng.randrange(NUM_IDS) for _ in range(rng.randint(1, 9))]
        if index in (8, 9):
            completion = batch[index - 6].completion_ids
        if index == 11:
            completion = [*batch[5].completion_ids[:-1], *completion]
        logprobs = [-rng.uniform(1, 7) for _ in completion]
        advantages = [rng.choice([0.75, -0.25, 0.5]) for _ in completion]
        batch.append(
            TrainSample(prompts[(index % 2) if index else 2], completion, logprobs, advantages)
        )
    return batch
