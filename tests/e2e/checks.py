"""What must hold whatever was killed: of the replies, of the log, of a cycle's rows."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from json import loads
from typing import Any

from ttrl_client.types import Cycle

from server.adaptation.prompt import Prompt
from server.adaptation.selection import rounds
from tests.e2e.learner import LEARNING, Learner
from tests.e2e.live import LiveServer
from tests.e2e.traffic import Reply


def check_nothing_noticed(replies: Sequence[Reply]) -> None:
    """Every request was answered in full by the version that its header names."""
    assert replies
    assert [reply for reply in replies if not reply.is_whole] == []
    assert [r for r in replies if r.fingerprints != {r.adapter}] == []
    assert {reply.is_streamed for reply in replies} == {True, False}


def check_only_told_away(replies: Sequence[Reply]) -> None:
    """Every request was answered in full, or told in the right way that the engine is away."""
    strange = [reply for reply in replies if not (reply.is_whole or reply.is_told_away)]
    assert strange == [], strange
    assert any(reply.status == 503 for reply in replies)
    check_nothing_noticed([reply for reply in replies if reply.is_whole])


def check_log(learner: Learner, replies: Sequence[Reply], *, cut: Sequence[Reply] = ()) -> None:
    """Each answer that arrived in full is in the log exactly once, as it arrived; one that was cut
    off is not taken for a whole one.
    """
    logged = learner.logged()
    assert [(i, n) for i, n in Counter(query.id for query in logged).items() if n > 1] == []
    by_id = {query.id: query for query in logged}
    whole = [reply for reply in replies if reply.is_whole]
    assert [reply for reply in whole if reply.id not in by_id] == []
    for reply in whole:
        query = by_id[str(reply.id)]
        assert (query.status, query.answers[0].text) == ("ok", reply.text)
        assert reply.adapter == f"{learner.name}--v{query.adapter_version}"
    for reply in cut:
        query = by_id[str(reply.id)]
        assert (query.status, query.eligible) == ("error", False)


def check_steps(live: LiveServer, cycle: Cycle) -> None:
    """Each step is there once, with each of the prompts that it was to learn from once, and with
    all samples.
    """
    steps = list(range(1, LEARNING.steps + 1))
    assert [step.step for step in cycle.steps] == steps
    groups = select(live, "SELECT step, fingerprint FROM groups WHERE cycle_id = ?", cycle.id)
    assert sorted(groups) == sorted(planned(live, cycle))
    updated = "SELECT step FROM cycle_steps WHERE cycle_id = ? AND engine_name IS NOT NULL"
    assert select(live, updated, cycle.id), "no step changed any weights"
    rollouts = select(
        live,
        "SELECT count(*) FROM rollouts JOIN groups ON id = group_id WHERE cycle_id = ?",
        cycle.id,
    )
    num_rollouts = LEARNING.steps * LEARNING.prompts_per_step * LEARNING.samples_per_prompt
    assert (rollouts, cycle.num_rollouts) == ([(num_rollouts,)], num_rollouts)


def planned(live: LiveServer, cycle: Cycle) -> list[tuple[int, str]]:
    """The step and fingerprint of every group that the cycle's selection leads to."""
    ((selection,),) = select(live, "SELECT selection FROM cycles WHERE id = ?", cycle.id)
    prompts = [
        Prompt(i, fingerprint, [], left) for i, fingerprint, left in loads(selection)["prompts"]
    ]
    all_rounds = islice(rounds(prompts, LEARNING.prompts_per_step), LEARNING.steps)
    return [(step, p.fingerprint) for step, chosen in enumerate(all_rounds, 1) for p in chosen]


def select(live: LiveServer, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of the server's database, read beside it."""
    path = live.data_dir / "ttrl.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
        return database.execute(statement, values).fetchall()
