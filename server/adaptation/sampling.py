"""Groups: the samples of one prompt, its votes split over the prompt's phrasings.

Prompts go to the engine as token ids made by its own chat template, so that what is sampled is what
is trained on. Seeds are derived from the cycle's, the step, the prompt and the view: a step that is
redone after a crash asks for the same samples.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from time import perf_counter

import structlog

from adapters.views import View, rephrase
from server.adaptation.run import Run, follow_orders
from server.adaptation.sampler import Draw, Policy, all_of
from server.adaptation.selection import Messages, Prompt
from server.engine.client import Completion
from server.errors import BadRequest

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled completion of one view of a prompt."""

    view: int
    prompt_ids: list[int]
    completion: Completion

    @property
    def truncated(self) -> bool:
        """Whether it was cut off at the token limit: such a sample neither votes nor teaches."""
        return self.completion.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class SampledGroup:
    """A prompt with its samples; `refused` says that the engine would not take the prompt."""

    prompt: Prompt
    samples: tuple[Sample, ...]
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Sampled:
    """Groups, and how long they took."""

    groups: tuple[SampledGroup, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Ask:
    prompt: int  # index
    view: int
    messages: Messages
    draw: Draw


async def sample_groups(
    run: Run, policy: Policy, prompts: Sequence[Prompt], *, num_samples: int, occasion: str
) -> Sampled:
    """`num_samples` completions of each prompt from `policy`, at most
    `settings.background_requests` requests at once.

    Raises:
        CycleCancelled: somebody cancelled the cycle meanwhile.
        EngineUnavailable: the engine stayed away.
    """
    started = perf_counter()
    views = tuple(View(view.pattern, tuple(view.templates)) for view in run.settings.views)
    asks = await asyncio.to_thread(_plan, run, prompts, views, num_samples, occasion)
    pause = _checkpoint(run, every=run.tools.settings.background_requests)
    seats = asyncio.Semaphore(run.tools.settings.background_requests)

    async def answer(ask: _Ask) -> list[Sample] | None:
        async with seats:
            await pause()
            return await _sample(run, policy, ask)

    answers = await all_of(answer(ask) for ask in asks)
    groups = tuple(
        _group(prompt, [a for ask, a in zip(asks, answers, strict=True) if ask.prompt == index])
        for index, prompt in enumerate(prompts)
    )
    return Sampled(groups, perf_counter() - started)


def _checkpoint(run: Run, *, every: int) -> Callable[[], Awaitable[None]]:
    """Looks for a cancellation once per so many requests: between waves."""
    served = count()

    async def pause() -> None:
        if next(served) % every == 0:
            await follow_orders(run)

    return pause


def _plan(
    run: Run, prompts: Sequence[Prompt], views: Sequence[View], num_samples: int, occasion: str
) -> list[_Ask]:
    learning = run.settings.learning
    asks: list[_Ask] = []
    for index, prompt in enumerate(prompts):
        phrasings = rephrase(prompt.messages[-1]["content"], views)[:num_samples]
        for view, (text, n) in enumerate(
            zip(phrasings, split(num_samples, len(phrasings)), strict=True)
        ):
            draw = Draw(
                n=n,
                max_tokens=learning.max_tokens,
                temperature=learning.temperature,
                seed=derive_seed(run.seed, occasion, prompt.fingerprint, view),
                cache_salt=run.cache_salt,
            )
            messages = [*prompt.messages[:-1], {"role": "user", "content": text}]
            asks.append(_Ask(index, view, messages, draw))
    return asks


def split(total: int, parts: int) -> list[int]:
    """`total` in `parts` whole parts that differ by one at most, larger ones first."""
    each, extra = divmod(total, parts)
    return [each + (index < extra) for index in range(parts)]


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**31) that depends on every part."""
    return int.from_bytes(sha256(repr(parts).encode()).digest()[:4], "big") >> 1


async def _sample(run: Run, policy: Policy, ask: _Ask) -> list[Sample] | None:
    """The samples of one view; None where the engine refuses the prompt."""
    try:
        prompt_ids = await run.tools.sampler.tokenize(ask.messages)
        completions = await run.tools.sampler.sample(policy, prompt_ids, ask.draw)
    except BadRequest as error:
        logger.info("prompt refused", cycle_id=run.lease.cycle_id, error=error.message)
        return None
    return [Sample(ask.view, prompt_ids, completion) for completion in completions]


def _group(prompt: Prompt, answers: Sequence[list[Sample] | None]) -> SampledGroup:
    samples = [sample for answer in answers if answer is not None for sample in answer]
    if len(answers) != sum(answer is not None for answer in answers):
        return SampledGroup(prompt, (), refused=True)
    return SampledGroup(prompt, tuple(samples))
