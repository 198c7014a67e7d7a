"""How good the bundled model is on questions it never saw, asked in each of their wordings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, Qwen2ForCausalLM

from demo.model_tokenizer import END_ID, PAD_ID, chat_ids
from demo.questions import ADDITION, SUBTRACTION, VIEWS, Question, additions, subtractions

QUESTIONS = 64
SAMPLES = 16
MAX_NEW_TOKENS = 80
BOXED = re.compile(r"\\boxed\{(\d+)\}")
MAKERS: dict[str, Callable[..., list[Question]]] = {
    ADDITION: additions,
    SUBTRACTION: subtractions,
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one kind of question; the tuples have one entry a phrasing."""

    kind: str
    pass_at_1: tuple[float, ...]
    maj_at_16: tuple[float, ...]
    answered: tuple[float, ...]
    all_views_agree: float
    two_views_agree: float
    example: str


def measure(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, seed: int
) -> list[Figures]:
    """Sample every held-out question in every phrasing at temperature 1."""
    torch.manual_seed(seed)
    return [
        _measure_kind(model, tokenizer, kind, make(seed, QUESTIONS, held_out=True))
        for kind, make in MAKERS.items()
    ]


def _measure_kind(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    kind: str,
    questions: list[Question],
) -> Figures:
    passed: list[float] = []
    majority: list[float] = []
    answered: list[float] = []
    labels: list[list[str | None]] = []
    example = ""
    for phrasing in range(len(VIEWS[kind].templates)):
        texts = sample(model, tokenizer, [each.views[phrasing] for each in questions])
        example = example or texts[0][0]
        groups = [[_answer(text) for text in group] for group in texts]
        votes = [_most_common(group) for group in groups]
        labels.append(votes)
        truth = [each.answer for each in questions]
        pairs = list(zip(groups, truth, strict=True))
        passed.append(_mean([answer == right for group, right in pairs for answer in group]))
        majority.append(_mean([vote == right for vote, right in zip(votes, truth, strict=True)]))
        answered.append(_mean([answer is not None for group in groups for answer in group]))
    distinct = [len(set(votes)) for votes in zip(*labels, strict=True)]
    return Figures(
        kind=kind,
        pass_at_1=tuple(passed),
        maj_at_16=tuple(majority),
        answered=tuple(answered),
        all_views_agree=_mean([count == 1 for count in distinct]),
        two_views_agree=_mean([count == 2 for count in distinct]),
        example=example,
    )


def sample(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, questions: list[str]
) -> list[list[str]]:
    """`SAMPLES` answers to each question. All questions must have the same length in tokens."""
    chats = [[{"role": "user", "content": question}] for question in questions]
    prompts = torch.tensor([chat_ids(tokenizer, chat, prompt=True) for chat in chats])
    settings = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=MAX_NEW_TOKENS,
        num_return_sequences=SAMPLES,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
    )
    # The library's own types say that its models cannot generate.
    generate = cast(Callable[..., torch.Tensor], getattr(model, "generate"))  # noqa: B009
    with torch.inference_mode():
        rows = generate(
            prompts, attention_mask=torch.ones_like(prompts), generation_config=settings
        )
    texts = tokenizer.batch_decode(rows[:, prompts.shape[1] :], skip_special_tokens=True)
    return [texts[start : start + SAMPLES] for start in range(0, len(texts), SAMPLES)]


def _answer(text: str) -> str | None:
    found = BOXED.findall(text)
    return found[-1] if found else None


def _most_common(answers: list[str | None]) -> str | None:
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None


def _mean(values: list[bool]) -> float:
    return sum(values) / len(values)
