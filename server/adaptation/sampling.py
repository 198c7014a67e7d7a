"""Groups: the samples of one prompt, its votes split over the prompt's phrasings.

Prompts go to the engine as token ids made by its own chat template, so that what is sampled is what
is trained on. Seeds are derived from the cycle's, the step, the prompt and the view, and sample k
of a view has seed + k however the samples are spread over waves: a step that is redone after a
crash asks for the same samples.

The groups of a step may be drawn in waves (adapters.waves). Groups do not wait for each other:
what one does not need, the others get sooner. The probe is always drawn whole, because the gate
compares the same samples of two versions.

Once the weights have changed, some samples of a prompt that has no label yet are the incumbent's
(`learning.incumbent_votes`; adapters.estimators.backed).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from time import perf_counter

import structlog
from ttrl_client.types import Learning

from adapters.answers import Defect
from adapters.waves import Rule, Stop, find_stop
from server.adaptation.groups import Sample, SampledGroup
from server.adaptation.judging import ballots_of, reads_strictly
from server.adaptation.learner import Checkpoint
from server.adaptation.phrasing import phrase
from server.adaptation.prompt import Messages, Prompt
from server.adaptation.run import Run
from server.adaptation.sampler import Draw, Policy, all_of
from server.adaptation.seats import Seats
from server.adaptation.seeds import derive_seed
from server.adaptation.served import served_votes
from server.answers import spec_of
from server.db.steps import first_labels
from server.errors import BadRequest

__all__ = ["Sample", "Sampled", "SampledGroup", "sample_groups", "sample_step", "split"]

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sampled:
    """Groups, and how long they took."""

    groups: tuple[SampledGroup, ...]
    seconds: float
    staleness: int = 0  # steps between the weights that they come from and those that learn


@dataclass(frozen=True, slots=True)
class _Drawing:
    """How the groups of one occasion are drawn."""

    policy: Policy
    seats: Seats
    num_samples: int
    occasion: str
    wave: int | None = None  # None: all at once
    backing: _Drawing | None = None  # of the incumbent, in the place of as many samples
    backed: Collection[str] = ()  # fingerprints of the prompts that need no such samples


async def sample_step(
    run: Run,
    step: int,
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    told: Collection[str] = (),
) -> Sampled:
    """The groups of a step, from the checkpoint's weights: in waves where the tenant has it so, and
    with the answers that these very weights gave to users. `told` are the fingerprints of prompts
    whose label no vote decides.

    Raises:
        CycleCancelled: somebody cancelled the cycle meanwhile.
        EngineUnavailable: the engine stayed away.
    """
    learning = run.settings.learning
    drawing = _Drawing(
        policy=checkpoint.policy,
        seats=Seats(run),
        num_samples=learning.samples_per_prompt,
        occasion=f"step {step}",
        wave=learning.wave,
    )
    served: Mapping[str, tuple[str, ...]] = {}
    if checkpoint.step > 0:
        drawing = await _with_backing(run, drawing, prompts, told)
    elif learning.served_votes:
        served = await served_votes(run, prompts)
    return await _sample(run, drawing, prompts, served)


async def _with_backing(
    run: Run, drawing: _Drawing, prompts: Sequence[Prompt], told: Collection[str]
) -> _Drawing:
    """The incumbent's votes for prompts without a label of this cycle: at most half of a group."""
    num_votes = min(run.settings.learning.incumbent_votes, drawing.num_samples // 2)
    if not num_votes:
        return drawing
    backing = replace(
        drawing,
        policy=Policy(run.incumbent.engine_name, run.incumbent.path),
        num_samples=num_votes,
        occasion=f"{drawing.occasion} incumbent",
        wave=None,
    )
    fingerprints = [prompt.fingerprint for prompt in prompts]
    async with run.tools.database.transaction(write=False) as session:
        backed = await first_labels(session, run.lease.cycle_id, fingerprints)
    return replace(drawing, backing=backing, backed={*backed, *told})


async def sample_groups(
    run: Run, policy: Policy, prompts: Sequence[Prompt], *, num_samples: int, occasion: str
) -> Sampled:
    """`num_samples` completions of each prompt from `policy`, at most
    `settings.background_requests` requests at once.

    Raises:
        CycleCancelled: somebody cancelled the cycle meanwhile.
        EngineUnavailable: the engine stayed away.
    """
    return await _sample(run, _Drawing(policy, Seats(run), num_samples, occasion), prompts, {})


async def _sample(
    run: Run,
    drawing: _Drawing,
    prompts: Sequence[Prompt],
    served: Mapping[str, tuple[str, ...]],
) -> Sampled:
    started = perf_counter()
    phrasings = await phrase(run, drawing.seats, prompts, limit=drawing.num_samples)
    groups = await all_of(
        _sample_group(run, drawing, chats, SampledGroup(prompt, (), served=votes))
        for prompt, chats in zip(prompts, phrasings, strict=True)
        for votes in [served.get(prompt.query_id, ())]
    )
    return Sampled(tuple(groups), perf_counter() - started)


async def _sample_group(
    run: Run, drawing: _Drawing, chats: Sequence[Messages], group: SampledGroup
) -> SampledGroup:
    """The group with its samples. One that is to be backed is drawn whole, beside the incumbent's
    answers.
    """
    backing = None if group.prompt.fingerprint in drawing.backed else drawing.backing
    try:
        if backing is None:
            return await _in_waves(run, drawing, chats, group)
        num_own = drawing.num_samples - backing.num_samples
        own = replace(drawing, num_samples=num_own, wave=None)
        mine, theirs = await all_of(_in_waves(run, d, chats, group) for d in (own, backing))
        return replace(mine, incumbent=theirs.samples)
    except BadRequest as error:
        logger.info("prompt refused", cycle_id=run.lease.cycle_id, error=error.message)
        return SampledGroup(group.prompt, (), refused=True)


async def _in_waves(
    run: Run, drawing: _Drawing, chats: Sequence[Messages], group: SampledGroup
) -> SampledGroup:
    """One wave after the other until the samples are enough."""
    remaining = split(drawing.num_samples, len(chats))
    for wave in waves(drawing.num_samples, len(chats), drawing.wave):
        drawn = [
            _draw(run, drawing, group.prompt, chat, view, wave[view])
            for view, chat in enumerate(chats)
        ]
        samples = in_turn(await all_of(drawn))
        group = replace(group, samples=(*group.samples, *samples))
        remaining = [left - len(some) for left, some in zip(remaining, wave, strict=True)]
        if any(remaining):
            group = replace(group, stop=await _find_stop(run, group, remaining))
        if group.stop is not None:
            break
    return group


async def _draw(
    run: Run, drawing: _Drawing, prompt: Prompt, chat: Messages, view: int, wanted: range
) -> list[Sample]:
    """The samples of one view with these numbers."""
    if not wanted:
        return []
    seed = derive_seed(run.seed, drawing.occasion, prompt.fingerprint, view)
    draw = Draw(
        n=len(wanted),
        max_tokens=run.settings.learning.max_tokens,
        temperature=run.settings.learning.temperature,
        seed=seed + wanted.start,
        cache_salt=run.cache_salt,
    )

    async def ask() -> list[Sample]:
        prompt_ids = await run.tools.sampler.tokenize(chat)
        completions = await run.tools.sampler.sample(drawing.policy, prompt_ids, draw)
        return [Sample(view, prompt_ids, completion) for completion in completions]

    return await drawing.seats.run(ask)


async def _find_stop(run: Run, group: SampledGroup, remaining: Sequence[int]) -> Stop | None:
    """Whether the group has enough. Answers are compared, so a thread does it."""
    rule = stop_rule(run.settings.learning)

    def find() -> Stop | None:
        strictly = reads_strictly(run.settings)
        try:
            ballots = ballots_of(group, run.tools.judge, spec_of(run.settings), strictly=strictly)
        except Defect:  # judging meets it again, and says so
            return None
        if run.settings.learning.estimator == "majority_strict":
            ballots = [replace(ballot, answer=ballot.written) for ballot in ballots]
        return find_stop(ballots, remaining, rule)

    return await asyncio.to_thread(find)


def stop_rule(learning: Learning) -> Rule:
    """What a group needs before its sampling may end."""
    return Rule(
        confidence=learning.stop_confidence,
        min_answers=learning.min_answers,
        min_samples=learning.train_samples or learning.samples_per_prompt,
        by_view=learning.estimator == "harmony",
    )


def waves(total: int, num_views: int, size: int | None) -> Iterator[list[range]]:
    """Which samples of each view are drawn in the first wave, the second, ...: `size` a wave,
    spread so that after every wave no view has more than one sample more than another.
    """
    have = [0] * num_views
    step = size or total
    for so_far in range(step, total + step, step):
        want = split(min(so_far, total), num_views)
        yield [range(start, stop) for start, stop in zip(have, want, strict=True)]
        have = want


def split(total: int, parts: int) -> list[int]:
    """`total` in `parts` whole parts that differ by one at most, larger ones first."""
    each, extra = divmod(total, parts)
    return [each + (index < extra) for index in range(parts)]


def in_turn(views: Sequence[Sequence[Sample]]) -> list[Sample]:
    """The first sample of every view, then the second, ..., so that any first K are spread too."""
    return [sample for rank in zip_longest(*views) for sample in rank if sample is not None]
