"""The cycle: how a tenant's adapter gets better on the tenant's own unlabelled traffic.

Test-time reinforcement learning (TTRL, arXiv 2504.16084): sample a group of answers to a logged
prompt, take the answer that the model itself agrees on as the label, reward the samples that equal
it, and move the weights towards them with a group-relative policy gradient,

    y* = vote(a_1 .. a_N),   r_i = 1[a_i = y*],   A_i = r_i - mean(r),

which is GRPO (arXiv 2402.03300) without the division by the deviation (Dr. GRPO, arXiv 2503.20783),
one update for each batch of samples, so sampling stays on-policy (or one update behind, where a
tenant has it so: server.adaptation.batches). The vote is the harmonic one over several phrasings of
the prompt (Self-Harmony, arXiv 2511.01191; see adapters.vote). Our deviations: the weights are a
LoRA adapter, groups that do not agree are not learned from, a correct answer that somebody told is
the label in the place of the vote's, the result is the mean of the weights of all steps as good as
the best and of the last one (server.adaptation.settling), and what was learned goes live only after
it has proved itself on prompts that were never trained on (adapters.gate).

Selection, reports and verdict are looked up where they are made, for an earlier claim of the same
cycle may have stored them; the steps done are in `run.progress`; the mean is made again.
server.adaptation.run lists every point at which a crash may come, and who goes on from there.
"""

from __future__ import annotations

from contextlib import aclosing

from ttrl_client.types import CycleStatus

from server.adaptation.batches import Batches
from server.adaptation.ending import Ending
from server.adaptation.evaluation import (
    decide_and_store,
    measure_candidate,
    measure_incumbent,
    refusal,
)
from server.adaptation.judging import judge
from server.adaptation.learning import learn, no_signal
from server.adaptation.promotion import go_live, publish
from server.adaptation.run import Run
from server.adaptation.selection import select_prompts
from server.adaptation.settling import settle


async def run_cycle(run: Run) -> Ending:
    """Select, measure, learn step by step, settle, measure again, and go live if it is better.
    Where nothing that could be learned would go live, nothing is.

    Raises:
        CycleError: it was cancelled, lost its lease, or cannot go on.
        EngineUnavailable: the engine stayed away.
    """
    if run.candidate_version is not None:  # published before a crash
        return await go_live(run, run.candidate_version)

    selection = await select_prompts(run)
    if selection.shortage is not None:
        return Ending(CycleStatus.SKIPPED, (selection.shortage,))
    baseline = await measure_incumbent(run, selection)
    if reasons := refusal(run, baseline):
        return Ending(CycleStatus.REJECTED, reasons)

    progress = run.progress
    async with aclosing(Batches(run, selection)) as batches:
        while (batch := await batches.next(progress)) is not None:
            groups = await judge(run, batch.groups, selection.truths)
            progress = await learn(run, progress, batch, groups)

    if progress.checkpoint.step == 0:
        return Ending(CycleStatus.REJECTED, await no_signal(run, progress))
    learned = await settle(run, progress)
    candidate = await measure_candidate(run, learned, selection.probe, baseline)
    verdict = await decide_and_store(run, candidate, baseline, progress.remarks)
    if not verdict.promote:
        return Ending(CycleStatus.REJECTED, verdict.reasons)
    verify_on = (*selection.probe, *selection.prompts)
    version = await publish(run, learned, verify_on, candidate, baseline, verdict)
    return await go_live(run, version)
