"""What the gate is told of weights: their samples on prompts that nothing is learned from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from adapters.gate import GatePolicy, foreseen
from adapters.report import ProbeSample, labels_of, report
from benchmarks.arms import OPTIONS, Arm
from benchmarks.loop import Group, Lane
from demo.questions import Question

POLICY = GatePolicy()


def probe_samples(lane: Lane, groups: Sequence[Group]) -> dict[str, list[ProbeSample]]:
    """By question. Blocking: answers are compared."""
    return {
        group.question.text: [
            ProbeSample(ballot.view, ballot.answer, ballot.num_tokens, ballot.masked)
            for ballot in lane.ballots(group)
        ]
        for group in groups
    }


async def untouched_refused(lane: Lane, arm: Arm, probe: Sequence[Question]) -> tuple[str, ...]:
    """Why a cycle on the untouched model would end before it trains (server.adaptation.cycle)."""
    num_samples = POLICY.samples_per_prompt
    groups = await lane.sample(lane.bench.start, arm, probe, num_samples, "probe")
    samples = await asyncio.to_thread(probe_samples, lane, groups)
    labels = labels_of(samples, OPTIONS.min_answers)
    return foreseen(report("v0", samples, labels, kl=None), POLICY)
