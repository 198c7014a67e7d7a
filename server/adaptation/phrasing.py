"""The phrasings through which each prompt is asked; the first is the prompt as it was asked.

A prompt that one of the tenant's patterns matches has that view's templates. Any other may have
generic ones: the tenant's instructions as system messages, and rewordings by the model itself.
Those are asked of version 0, which has not been trained to answer, once per prompt and claim, with
a seed of the cycle's own: whoever takes the cycle up after a crash asks for the same ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from adapters.paraphrase import INSTRUCTION, MAX_QUESTION, accept
from adapters.views import View, has_view, instruct, rephrase
from server.adaptation.prompt import Messages, Prompt
from server.adaptation.run import Run
from server.adaptation.sampler import Draw, Policy, all_of
from server.adaptation.seats import Seats
from server.adaptation.seeds import derive_seed
from server.engine.client import Completion
from server.errors import BadRequest
from server.tenants import identity_ref

logger = structlog.get_logger(__name__)

TEMPERATURE = 0.5  # low enough to keep the meaning, high enough for several to differ
MAX_TOKENS = 1024


async def phrase(
    run: Run, seats: Seats, prompts: Sequence[Prompt], *, limit: int
) -> list[tuple[Messages, ...]]:
    """For each prompt its phrasings, `limit` at most, none twice.

    Raises:
        CycleCancelled: somebody cancelled the cycle meanwhile.
        EngineUnavailable: the engine stayed away.
    """
    views = tuple(View(view.pattern, tuple(view.templates)) for view in run.settings.views)
    matched = await asyncio.to_thread(
        lambda: [has_view(prompt.messages[-1]["content"], views) for prompt in prompts]
    )
    if run.settings.paraphrases and limit > 1:
        unmatched = [p for p, found in zip(prompts, matched, strict=True) if not found]
        await all_of(_reword_once(run, seats, prompt) for prompt in unmatched)
    return await asyncio.to_thread(
        lambda: [
            (_templates(prompt, views) if found else _generic(run, prompt))[:limit]
            for prompt, found in zip(prompts, matched, strict=True)
        ]
    )


def _templates(prompt: Prompt, views: Sequence[View]) -> tuple[Messages, ...]:
    texts = rephrase(prompt.messages[-1]["content"], views)
    return tuple(_asking(prompt, text) for text in texts)


def _generic(run: Run, prompt: Prompt) -> tuple[Messages, ...]:
    reworded = run.rewordings.get(prompt.fingerprint, ())
    return (
        prompt.messages,
        *instruct(prompt.messages, list(dict.fromkeys(run.settings.instructions))),
        *(_asking(prompt, text) for text in reworded),
    )


def _asking(prompt: Prompt, text: str) -> Messages:
    return [*prompt.messages[:-1], {"role": "user", "content": text}]


async def _reword_once(run: Run, seats: Seats, prompt: Prompt) -> None:
    if prompt.fingerprint not in run.rewordings:
        run.rewordings[prompt.fingerprint] = await _reword(run, seats, prompt)


async def _reword(run: Run, seats: Seats, prompt: Prompt) -> tuple[str, ...]:
    """Rewordings of the question that keep what its answer hangs on; often fewer than wanted."""
    question = prompt.messages[-1]["content"]
    if len(question) > MAX_QUESTION:
        return ()
    chat = [{"role": "user", "content": f"{INSTRUCTION}\n\n{question}"}]
    sampler, start = run.tools.sampler, identity_ref(run.tenant, run.tools.identity_dir)

    async def ask() -> list[Completion]:
        prompt_ids = await sampler.tokenize(chat)
        draw = Draw(
            n=run.settings.paraphrases,
            max_tokens=min(MAX_TOKENS, 2 * len(prompt_ids)),
            temperature=TEMPERATURE,
            seed=derive_seed(run.seed, "paraphrase", prompt.fingerprint),
            cache_salt=run.cache_salt,
        )
        return await sampler.sample(Policy(start.engine_name, start.path), prompt_ids, draw)

    try:
        written = await seats.run(ask)
    except BadRequest as error:
        logger.info("not reworded", cycle_id=run.lease.cycle_id, error=error.message)
        return ()
    whole = [completion.text for completion in written if completion.finish_reason == "stop"]
    return await asyncio.to_thread(_accepted, question, whole)


def _accepted(question: str, written: Sequence[str]) -> tuple[str, ...]:
    kept = [text for text in (accept(question, text) for text in written) if text is not None]
    return tuple(dict.fromkeys(kept))
