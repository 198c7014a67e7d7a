"""Make the bundled tiny model from nothing: `python -m demo.make_model --out demo/model`.

The model is trained on seeded synthetic conversations (`model_lessons`), then measured on questions
it never saw, and written in Hugging Face format together with a model card that holds the figures.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from demo.model_card import card
from demo.model_lessons import Lesson, lessons
from demo.model_measure import Figures, measure
from demo.model_tokenizer import END_ID, PAD_ID, chat_ids, make_tokenizer

log = logging.getLogger(__name__)

SEED = 2504
STEPS = 1000
WARM_UP = 60
BATCH = 64
LEARNING_RATE = 3e-3
MAX_LENGTH = 1024
IGNORED = -100  # the label that the loss skips
BUCKET = 16  # batches whose conversations are sorted by length, so that they pad little


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded token ids, and the same with all but the assistant's part ignored."""

    ids: torch.Tensor
    labels: torch.Tensor


def make_config(tokenizer: PreTrainedTokenizerBase) -> Qwen2Config:
    """The architecture: 1.6 million parameters."""
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
        initializer_range=0.06,  # near 1 / sqrt(hidden_size); 0.02 learns far slower
        architectures=["Qwen2ForCausalLM"],
        dtype="bfloat16",
    )


def tokenized(
    tokenizer: PreTrainedTokenizerBase, conversations: list[Lesson]
) -> list[tuple[list[int], int]]:
    """Each conversation's token ids by the chat template, and where the assistant's part begins."""
    examples: list[tuple[list[int], int]] = []
    for conversation in conversations:
        chat = conversation.messages()
        ids = chat_ids(tokenizer, chat, prompt=False)
        asked = chat_ids(tokenizer, chat[:-1], prompt=True)
        if ids[: len(asked)] != asked:
            raise ValueError("the prompt's tokens are not the beginning of the conversation's")
        examples.append((ids, len(asked)))
    return examples


def make_batches(
    tokenizer: PreTrainedTokenizerBase, conversations: list[Lesson], seed: int
) -> list[Batch]:
    """All training batches, in the order in which they are read."""
    examples = tokenized(tokenizer, conversations)
    batches: list[Batch] = []
    for start in range(0, len(examples), BATCH * BUCKET):
        bucket = sorted(examples[start : start + BATCH * BUCKET], key=lambda each: len(each[0]))
        batches += [_padded(bucket[i : i + BATCH]) for i in range(0, len(bucket), BATCH)]
    random.Random(seed).shuffle(batches)
    return batches


def _padded(examples: list[tuple[list[int], int]]) -> Batch:
    width = max(len(ids) for ids, _ in examples)
    ids = torch.full((len(examples), width), PAD_ID)
    labels = torch.full((len(examples), width), IGNORED)
    for row, (tokens, begin) in enumerate(examples):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, begin : len(tokens)] = ids[row, begin : len(tokens)]
    return Batch(ids, labels)


def train(model: Qwen2ForCausalLM, batches: list[Batch]) -> None:
    """One pass over the batches: AdamW, warm-up, then a cosine down to a tenth."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01
    )
    down = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, max(1, len(batches) - WARM_UP), eta_min=LEARNING_RATE / 10
    )
    up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / WARM_UP, total_iters=WARM_UP)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [up, down], milestones=[WARM_UP])
    model.train()
    began = time.monotonic()
    for step, batch in enumerate(batches, start=1):
        # Padding is on the right and ignored by the loss, so plain causal attention is enough.
        loss = model(input_ids=batch.ids, labels=batch.labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 25 == 0:
            log.info("step=%d loss=%.4f s=%.0f", step, loss.item(), time.monotonic() - began)


def write(
    out: Path, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, text: str
) -> None:
    """The model directory."""
    out.mkdir(parents=True, exist_ok=True)
    # save_pretrained writes the generation config too; nothing but the tokens that end an answer.
    model.generation_config = GenerationConfig(
        eos_token_id=[END_ID, PAD_ID],
        pad_token_id=PAD_ID,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # it is written for the owner only
    (out / "README.md").write_text(text, encoding="utf-8")


def make(out: Path, seed: int, steps: int) -> list[Figures]:
    """Train, measure and write the model."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(MAX_LENGTH)
    model = Qwen2ForCausalLM(make_config(tokenizer)).float()
    parameters = model.num_parameters()
    log.info("parameters=%d tokens=%d", parameters, len(tokenizer))
    train(model, make_batches(tokenizer, lessons(seed, steps * BATCH), seed))
    model.bfloat16()
    write(out, model, tokenizer, "")  # the weights are safe before the measuring begins
    # Measured with the rounded weights, which are what everyone loads.
    figures = measure(model.float().eval(), tokenizer, seed)
    text = card(figures, seed=seed, steps=steps, batch=BATCH, parameters=parameters)
    (out / "README.md").write_text(text, encoding="utf-8")
    return figures


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo/model"))
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for figures in make(arguments.out, arguments.seed, arguments.steps):
        log.info("%s", figures)


if __name__ == "__main__":
    main()
