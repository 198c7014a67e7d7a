"""Answers that a version gave to users, as votes on the same prompt.

They vote where they are what sampling would have drawn: from the weights that the step samples from
(so only before the cycle's first update), for the very same messages, under the same settings. They
are votes only: their tokens and log-probabilities are not logged, so nothing is trained on them.

Not in the probe. There the gate compares two versions on the same prompts and seeds. Served answers
exist for one of the two, for popular prompts, and for the first view alone: they would make the
incumbent's labels surer where users ask often, and move the agreement between views, which is what
the gate trusts labels by.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isclose
from typing import Any

from ttrl_client.types import Learning

from server.adaptation.prompt import Prompt
from server.adaptation.run import Run
from server.db import traffic
from server.db.traffic import ServedQuery

# What a parameter may be and still leave the sampled distribution as it is. One that is not here
# (a seed, a stop text, a grammar, ...) makes the answer another draw.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "top_p": (1,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
    "response_format": ({"type": "text"},),
}
_IRRELEVANT = frozenset({"model", "n", "stream", "logprobs", "top_logprobs", "ttrl"})
# Under a smaller limit than a sample's, only the short answers come to their end and vote: another
# distribution, although each one is a draw of the policy.
_LIMITS = ("max_tokens", "max_completion_tokens")
_DEFAULT_TEMPERATURE = 1.0  # of an engine with `--generation-config vllm`


async def served_votes(run: Run, prompts: Sequence[Prompt]) -> dict[str, tuple[str, ...]]:
    """By query id of the prompts: texts that the incumbent answered, newest first, no more than
    are sampled. Only what was logged before the cycle began, so that a step that is redone counts
    the same votes.
    """
    learning = run.settings.learning
    asked = {prompt.query_id: prompt.messages for prompt in prompts}
    async with run.tools.database.transaction(write=False) as session:
        found = await traffic.served_queries(
            session,
            run.lease.cycle_id,
            list(asked),
            version=run.incumbent.number,
            limit=learning.samples_per_prompt,
        )
    votes: defaultdict[str, list[str]] = defaultdict(list)
    for query in found:
        if query.messages == asked[query.asked_as] and is_like_sampling(query, learning):
            votes[query.asked_as] += _texts(query)
    return {
        asked_as: tuple(texts[: learning.samples_per_prompt]) for asked_as, texts in votes.items()
    }


def is_like_sampling(query: ServedQuery, learning: Learning) -> bool:
    """Whether the query was answered under the settings of a step's samples."""
    params = {name: value for name, value in query.params.items() if value is not None}
    temperature = params.pop("temperature", _DEFAULT_TEMPERATURE)
    if not isclose(temperature, learning.temperature):
        return False
    limits = [params.pop(name) for name in _LIMITS if name in params]
    if any(limit < learning.max_tokens for limit in limits):
        return False
    # The log counts the tokens of all answers together: none is longer than a sample on average.
    if query.completion_tokens is None:
        return False
    if query.completion_tokens > learning.max_tokens * len(query.answers):
        return False
    return all(
        name in _IRRELEVANT or value in _NEUTRAL.get(name, ()) for name, value in params.items()
    )


def _texts(query: ServedQuery) -> list[str]:
    """Answers that came to their end: one that was cut off would not vote as a sample either."""
    return [text for text, finish_reason in query.answers if finish_reason == "stop"]
