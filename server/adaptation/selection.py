"""Which logged prompts a cycle learns from, and which it is judged on.

Phrasings of one question are one prompt: prompts are told apart by a fingerprint of the chat whose
last user message is in its canonical phrasing. The probe is a stable share of all questions, by a
hash that leaves out system messages, spaces and case, so that a question is never on both sides; a
chat that goes on from a logged question is on that question's side. Everything that is left out is
counted by a reason code. The choice is stored with the cycle, once.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import islice
from typing import Any

from ttrl_client.types import CyclePhase, TenantSettings

from adapters.views import View
from server.adaptation.prompt import (
    Messages,
    Prompt,
    chat_messages,
    opening,
    prompt_fingerprint,
    question_fingerprint,
)
from server.adaptation.ranking import History, rank
from server.adaptation.run import Run
from server.adaptation.truths import Truths, known_truths
from server.db import steps, traffic
from server.db.cycles import update_fenced
from server.db.traffic import LoggedPrompt

MAX_QUERIES = 20_000  # newest queries that are looked at
BATCH = 200  # of them in memory at once
MAX_CHARS = 65_536  # of one prompt
MAX_FOLLOW_UPS = 16  # of one question; what more chats begin with is an example for them all
POOL = 4  # times as many candidates as are taken, where they are ranked


@dataclass(frozen=True, slots=True)
class Selection:
    """A cycle's prompts: those to train on, in the order of the first epoch, and the probe."""

    prompts: tuple[Prompt, ...]
    probe: tuple[Prompt, ...]
    counts: Mapping[str, int]
    shortage: str | None  # why the cycle cannot run, with numbers
    truths: Mapping[str, str] = field(default_factory=dict[str, str])
    # correct answers by fingerprint, as class representatives, where feedback has told them


@dataclass(slots=True)
class Candidates:
    """Eligible prompts on their way into a selection.

    `questions`: the questions of all that were looked at, also of those not kept, by fingerprint.
    """

    train: list[Prompt] = field(default_factory=list[Prompt])
    probe: list[Prompt] = field(default_factory=list[Prompt])
    counts: Counter[str] = field(default_factory=Counter[str])
    questions: dict[str, str] = field(default_factory=dict[str, str])
    follow_ups: Counter[str] = field(default_factory=Counter[str])  # chats by their question


async def select_prompts(run: Run) -> Selection:
    """The cycle's selection: the stored one, or a new one that is stored before it is used."""
    if run.selection is not None:
        return await _restore(run, run.selection)
    tenant_id = run.lease.tenant_id
    async with run.tools.database.transaction(write=False) as session:
        recent = await traffic.recent_queries(session, tenant_id, limit=MAX_QUERIES)
        refused = await traffic.count_refused(session, tenant_id)
    newest = _newest_of_each(recent)
    asked = frozenset(fingerprint for _, fingerprint in recent)
    candidates, visits = await _gather(run, newest, asked)
    candidates.counts["duplicate"] += len(recent) - len(newest)
    candidates.counts.update(refused)
    history = await _history(run, candidates.train)
    selection = choose(candidates, visits, run.settings, seed=run.seed, history=history)
    if selection.shortage is None:
        chosen = {prompt.fingerprint for prompt in (*selection.prompts, *selection.probe)}
        selection = with_truths(selection, await known_truths(run, chosen))
    async with run.tools.database.transaction() as session:
        await update_fenced(
            session, run.lease, selection=_to_json(selection), phase=CyclePhase.BASELINE.value
        )
    return selection


def with_truths(selection: Selection, truths: Truths) -> Selection:
    """The selection with what feedback says about its prompts, which is counted too."""
    counts = Counter(selection.counts) + Counter(truths.counts)
    counts["truths"] = len(truths.answers)
    counts["probe_truths"] = sum(p.fingerprint in truths.answers for p in selection.probe)
    kept = {code: count for code, count in sorted(counts.items()) if count}
    return replace(selection, counts=kept, truths=truths.answers)


async def _history(run: Run, prompts: Sequence[Prompt]) -> History:
    """What earlier groups of the prompts voted, where their order hangs on it."""
    if run.settings.learning.prompt_order == "fresh":
        return {}
    fingerprints = [prompt.fingerprint for prompt in prompts]
    async with run.tools.database.transaction(write=False) as session:
        return await steps.label_history(session, run.lease.tenant_id, fingerprints)


async def _gather(
    run: Run, newest: Sequence[str], asked: Collection[str]
) -> tuple[Candidates, dict[str, int]]:
    """Bounded candidates with their visits, newest first, until both sides are full: a tenant's
    whole log is never in memory. `asked`: what the log has of it, as fingerprints.
    """
    candidates, visits = Candidates(), dict[str, int]()
    longest = run.tools.settings.max_model_len
    for start in range(0, len(newest), BATCH):
        if is_full(candidates, run.settings):
            candidates.counts["older"] += len(newest) - start
            break
        ids = newest[start : start + BATCH]
        async with run.tools.database.transaction(write=False) as session:
            logged = await traffic.load_prompts(session, run.lease.tenant_id, ids)
        found = [logged[query_id] for query_id in ids if query_id in logged]
        new = await asyncio.to_thread(
            sort_candidates, found, run.settings, longest, candidates, asked
        )
        async with run.tools.database.transaction(write=False) as session:
            visits |= await steps.count_visits(session, run.lease.tenant_id, new)
        candidates = bounded(candidates, visits, run.settings)
    return candidates, visits


def bounded(
    candidates: Candidates, visits: Mapping[str, int], settings: TenantSettings
) -> Candidates:
    """What the sides take: the rest is counted, and its texts are let go. One side may be full long
    before the other, and then goes on being offered prompts.
    """
    counts = Counter(candidates.counts)
    # With a larger probe fraction than before, a prompt may change sides: what was trained on, in
    # whatever words, proves nothing any more.
    question = candidates.questions
    trained = {question[fingerprint] for fingerprint in visits}
    unseen = [prompt for prompt in candidates.probe if question[prompt.fingerprint] not in trained]
    counts["trained_before"] += len(candidates.probe) - len(unseen)
    probe = unseen[: settings.gate.probe_prompts]
    counts["over_probe_prompts"] += len(unseen) - len(probe)
    most = settings.learning.max_visits
    fresh = [p for p in candidates.train if visits.get(p.fingerprint, 0) < most]
    counts["over_max_visits"] += len(candidates.train) - len(fresh)
    train = fresh[: _most_to_train(settings)]
    counts["over_max_prompts"] += len(fresh) - len(train)
    return replace(candidates, train=train, probe=probe, counts=counts)


def _most_to_train(settings: TenantSettings) -> int:
    """As many candidates as are taken, or a larger pool to rank."""
    pool = 1 if settings.learning.prompt_order == "fresh" else POOL
    return pool * settings.learning.max_prompts


def is_full(taken: Candidates, settings: TenantSettings) -> bool:
    """Whether more than these, which are bounded, would only be left out, or make too large a pool
    to rank.
    """
    is_probe_full = len(taken.probe) >= settings.gate.probe_prompts
    return is_probe_full and len(taken.train) >= _most_to_train(settings)


def _newest_of_each(recent: Sequence[tuple[str, str]]) -> list[str]:
    newest: dict[str, str] = {}
    for query_id, fingerprint in recent:
        newest.setdefault(fingerprint, query_id)
    return list(newest.values())


def sort_candidates(
    logged: Sequence[LoggedPrompt],
    settings: TenantSettings,
    max_model_len: int | None,
    candidates: Candidates,
    asked: Collection[str] = (),
) -> list[str]:
    """Put prompts, newest first, on their sides of `candidates`; the fingerprints of those that are
    new. `asked` as in `opening`. Slow: views are matched.
    """
    views = tuple(View(view.pattern, tuple(view.templates)) for view in settings.views)
    new: list[str] = []
    for prompt in logged:
        messages = chat_messages(prompt.messages)
        reason = _refusal(prompt, messages, settings.learning.max_tokens, max_model_len)
        if messages is None or reason is not None:
            candidates.counts[reason or "not_text"] += 1
            continue
        fingerprint = prompt_fingerprint(messages, views)
        if fingerprint in candidates.questions:
            candidates.counts["duplicate"] += 1
            continue
        question = question_fingerprint(messages, views)
        if (length := opening(prompt.messages, asked)) < len(messages):
            first = question_fingerprint(messages[:length], views)
            candidates.follow_ups[first] += 1
            question = first if candidates.follow_ups[first] <= MAX_FOLLOW_UPS else question
        candidates.questions[fingerprint] = question
        new.append(fingerprint)
        held_out = in_probe(question, settings.gate.probe_fraction)
        side = candidates.probe if held_out else candidates.train
        side.append(Prompt(prompt.query_id, fingerprint, messages))
    return new


def _refusal(
    prompt: LoggedPrompt, messages: Messages | None, max_tokens: int, max_model_len: int | None
) -> str | None:
    if messages is None:
        return "not_text"
    if sum(len(message["content"]) for message in messages) > MAX_CHARS:
        return "too_long"
    length = prompt.prompt_tokens or 0
    if max_model_len is not None and length + max_tokens > max_model_len:
        return "too_long"
    return None


def in_probe(question: str, fraction: float) -> bool:
    """Whether a question is held out: the same answer today and in a year."""
    return int(sha256(f"probe:{question}".encode()).hexdigest()[:8], 16) < fraction * 2**32


def choose(
    taken: Candidates,
    visits: Mapping[str, int],
    settings: TenantSettings,
    *,
    seed: int,
    history: History | None = None,
) -> Selection:
    """Of bounded candidates the probe as it is, and what is trained on shuffled; or only the first
    of it in the order that the tenant wants, which it keeps.
    """
    counts, probe = Counter(taken.counts), taken.probe
    most = settings.learning.max_visits
    fresh = [replace(p, visits_left=most - visits.get(p.fingerprint, 0)) for p in taken.train]
    order = settings.learning.prompt_order
    train = rank(fresh, history or {}, order)[: settings.learning.max_prompts]
    counts["over_max_prompts"] += len(fresh) - len(train)
    counts["selected"], counts["probe"] = len(train), len(probe)
    if order == "fresh":
        random.Random(seed).shuffle(train)
    kept = {code: count for code, count in sorted(counts.items()) if count}
    return Selection(tuple(train), tuple(probe), kept, _shortage(train, probe, settings))


def _shortage(
    train: Sequence[Prompt], probe: Sequence[Prompt], settings: TenantSettings
) -> str | None:
    if len(train) < settings.learning.min_prompts:
        return f"prompts: {len(train)} < {settings.learning.min_prompts}"
    if settings.gate.enabled and len(probe) < settings.gate.min_probe_prompts:
        return f"probe_prompts: {len(probe)} < {settings.gate.min_probe_prompts}"
    return None


def rounds(prompts: Sequence[Prompt], prompts_per_step: int) -> Iterator[tuple[Prompt, ...]]:
    """The prompts of step 1, 2, ...: round and round in one order, none twice in a step, each as
    often as it may be visited. A function of the selection alone, so a resumed cycle goes on as it
    would have gone.
    """
    ring = [(prompt, prompt.visits_left) for prompt in prompts]
    while ring:
        now, later = ring[:prompts_per_step], ring[prompts_per_step:]
        yield tuple(prompt for prompt, _ in now)
        ring = later + [(prompt, left - 1) for prompt, left in now if left > 1]


def prompts_of_step(
    selection: Selection, step: int, prompts_per_step: int
) -> tuple[Prompt, ...] | None:
    """The prompts of step `step` (from 1); None when no prompt may be visited any more."""
    chosen = next(islice(rounds(selection.prompts, prompts_per_step), step - 1, None), None)
    return None if chosen is None else tuple(prompt for prompt in chosen if prompt.messages)


def _to_json(selection: Selection) -> dict[str, Any]:
    return {
        "counts": dict(selection.counts),
        "shortage": selection.shortage,
        "truths": dict(selection.truths),
        "prompts": [[p.query_id, p.fingerprint, p.visits_left] for p in selection.prompts],
        "probe": [[p.query_id, p.fingerprint, p.visits_left] for p in selection.probe],
    }


async def _restore(run: Run, stored: Mapping[str, Any]) -> Selection:
    """The stored selection with its texts. A prompt that was erased meanwhile keeps its place in
    the rounds, so that those of the others do not change.
    """
    ids = [entry[0] for side in ("prompts", "probe") for entry in stored[side]]
    async with run.tools.database.transaction(write=False) as session:
        logged = await traffic.load_prompts(session, run.lease.tenant_id, ids)
    texts = {query_id: chat_messages(prompt.messages) for query_id, prompt in logged.items()}

    def side(name: str) -> tuple[Prompt, ...]:
        return tuple(
            Prompt(query_id, fingerprint, texts.get(query_id) or [], visits_left)
            for query_id, fingerprint, visits_left in stored[name]
        )

    probe = tuple(prompt for prompt in side("probe") if prompt.messages)
    truths = stored.get("truths", {})  # an older server stored none
    return Selection(side("prompts"), probe, stored["counts"], stored["shortage"], truths)
