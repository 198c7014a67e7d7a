"""What is right, as feedback has told it: the correct answers of a cycle's prompts.

Feedback is about an answer, a truth about a prompt: all feedback to any phrasing of it counts. It
is read like a response, with the tenant's kind of answer, or, where that finds nothing, taken for
the answer itself. Two feedbacks that tell different answers of one prompt tell none: somebody is
mistaken, and nobody here knows who. A tenant that was mistaken replaces its own feedback.

A cycle looks once, when it selects its prompts, and stores what it found with them: incumbent and
candidate are measured against the same truths, whatever arrives in between, and a step that is done
again after a crash has the same labels.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from ttrl_client.types import TenantSettings

from adapters.answers import AnswerSpec, Defect
from adapters.answers.extraction import storable
from adapters.answers.worker import JudgeFailed
from adapters.views import View
from server.adaptation.prompt import chat_messages, prompt_fingerprint
from server.adaptation.run import Run
from server.adaptation.tools import Judge
from server.answers import spec_of
from server.db import feedback
from server.db.feedback import Told
from server.errors import CycleError

logger = structlog.get_logger(__name__)

MAX_FEEDBACK = 20_000  # newest feedbacks that are looked at
MAX_TEXTS = 8  # different ones of one prompt that are compared


@dataclass(frozen=True, slots=True)
class Truths:
    """Correct answers by fingerprint, as class representatives; how many prompts have none that can
    be used, by reason code.
    """

    answers: Mapping[str, str]
    counts: Mapping[str, int]


@dataclass(slots=True)
class _Found:
    """What was told, by fingerprint, newest first."""

    told: defaultdict[str, list[Told]] = field(default_factory=lambda: defaultdict(list))
    canonical: dict[str, str | None] = field(default_factory=dict[str, str | None])
    # by the fingerprint of the log; None: it is no chat that could be learned from


async def known_truths(run: Run, wanted: Collection[str]) -> Truths:
    """The truths of the prompts with these fingerprints.

    Raises:
        CycleError: the tenant's own function that reads answers cannot be loaded.
    """
    scores, tenant_id = run.settings.learning.trust_scores, run.lease.tenant_id
    async with run.tools.database.transaction(write=False) as session:
        keys = await feedback.newest_ids(session, tenant_id, scores=scores, limit=MAX_FEEDBACK)
    found = _Found()
    for start in range(0, len(keys), feedback.CHUNK):
        chunk = keys[start : start + feedback.CHUNK]
        async with run.tools.database.transaction(write=False) as session:
            told = await feedback.load_told(session, tenant_id, chunk, scores=scores)
        await asyncio.to_thread(_sort, told, run.settings, frozenset(wanted), found)
    return await asyncio.to_thread(truths_of, found.told, run.tools.judge, spec_of(run.settings))


def _sort(
    told: Sequence[Told], settings: TenantSettings, wanted: Collection[str], found: _Found
) -> None:
    """Put what was told under its prompts. Slow: views are matched."""
    views = tuple(View(view.pattern, tuple(view.templates)) for view in settings.views)
    for one in told:
        if one.raw_fingerprint not in found.canonical:
            messages = chat_messages(one.messages)
            fingerprint = None if messages is None else prompt_fingerprint(messages, views)
            found.canonical[one.raw_fingerprint] = fingerprint if fingerprint in wanted else None
        fingerprint = found.canonical[one.raw_fingerprint]
        if fingerprint is not None and len(found.told[fingerprint]) < MAX_TEXTS:
            known = {(other.text, other.is_answer) for other in found.told[fingerprint]}
            if (one.text, one.is_answer) not in known:
                found.told[fingerprint].append(one)


def truths_of(told: Mapping[str, Sequence[Told]], judge: Judge, spec: AnswerSpec) -> Truths:
    """The one answer that all feedback to a prompt tells. Blocking: answers are compared."""
    answers: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for fingerprint, texts in told.items():
        classes = _classes(texts, judge, spec)
        if len(classes) > 1:
            counts["conflicting_truths"] += 1
        elif (answer := next(iter(classes), None)) is not None:
            answers[fingerprint] = answer
        else:
            counts["unreadable_truths"] += 1
    return Truths(answers, counts)


def _classes(texts: Sequence[Told], judge: Judge, spec: AnswerSpec) -> set[str]:
    try:
        found = judge.classes(_read(texts, judge, spec), spec)
    except Defect:
        logger.exception("feedback not compared")
        return set()
    return {answer for answer in found if answer is not None}


def _read(texts: Sequence[Told], judge: Judge, spec: AnswerSpec) -> list[str | None]:
    try:
        found = judge.extract([one.text for one in texts], spec)
    except JudgeFailed as error:
        raise CycleError(f"answer: {error}") from error
    return [
        storable(one.text, spec) if answer is None and one.is_answer else answer
        for one, answer in zip(texts, found, strict=True)
    ]
