"""From a candidate that passed the gate to the version that answers.

The order is what makes every crash harmless: the directory (synced, then renamed into its place),
the engine loads it and proves that it serves these weights, the version's row, the swap. Nothing
refers to a version before it is whole, and the incumbent answers until the last step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum, isfinite
from pathlib import Path

from ttrl_client.types import CycleStatus

from adapters.gate import GateDecision
from adapters.manifest import Manifest
from adapters.report import EvaluationReport
from adapters.store import PoisonedAdapter, VersionExists
from server.adaptation.ending import Ending
from server.adaptation.evaluation import Baseline
from server.adaptation.judging import train_sample
from server.adaptation.learner import Checkpoint
from server.adaptation.prompt import Prompt
from server.adaptation.run import Run, follow_orders
from server.adaptation.sampler import Policy
from server.adaptation.sampling import sample_groups
from server.adaptation.tracing import entered
from server.db import cycles, versions
from server.errors import Conflict, CycleCancelled, CycleError, NotFound
from server.swap import swap
from server.tenants import VersionRef, version_engine_name

VERIFY_PROMPTS = 4
MAX_MISMATCH = 0.05  # nats a token between engine and trainer; bfloat16 was measured at 0.001
MAX_NUMBERS = 100  # places that other cycles may have taken without a row


@dataclass(frozen=True, slots=True)
class Verification:
    """What the engine's samples under the new name say about the weights that it serves."""

    mismatch: float  # mean |engine - trainer| of the log-probabilities, nats a token
    distance_to_base: float  # mean |engine - base model|
    num_tokens: int

    @property
    def fault(self) -> str | None:
        """Why these cannot be the published weights; None if they are."""
        if not isfinite(self.mismatch) or self.mismatch > MAX_MISMATCH:
            return f"mismatch: {self.mismatch:.4f} > {MAX_MISMATCH}"
        if self.distance_to_base <= self.mismatch:
            return f"distance_to_base: {self.distance_to_base:.4f} <= {self.mismatch:.4f}"
        return None


async def publish(
    run: Run,
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    candidate: EvaluationReport,
    baseline: Baseline,
    verdict: GateDecision,
) -> int:
    """Make the checkpoint the tenant's next version, not live yet; its number. Its report says what
    the verdict rests on.

    Raises:
        CycleError: the files, or what the engine makes of them, are not what was trained.
        LeaseLost: another worker has taken the cycle up.
    """
    await follow_orders(run)
    entered("publish")
    manifest = await _write(run, checkpoint)
    policy = Policy(manifest.engine_name, str(_version_dir(run, manifest.number)))
    load_ms = await _load(run, manifest)
    verified = await _verify(run, policy, checkpoint, prompts)
    report = {
        "decision": "promoted",
        "reasons": list(verdict.reasons),
        "incumbent": asdict(baseline.report),
        "candidate": asdict(candidate),
        "verification": asdict(verified),
        "load_ms": load_ms,
    }
    async with run.tools.database.transaction() as session:
        await cycles.update_fenced(session, run.lease, candidate_version=manifest.number)
        await versions.publish_version(
            session,
            tenant_id=run.lease.tenant_id,
            number=manifest.number,
            engine_name=manifest.engine_name,
            path=policy.path,
            manifest_digest=manifest.digest,
            parent=run.incumbent.number,
            cycle_id=run.lease.cycle_id,
            report=report,
            now=run.tools.clock.now(),
        )
    return manifest.number


def _version_dir(run: Run, number: int) -> Path:
    return run.tools.store.version_dir(run.lease.tenant_id, number)


async def _write(run: Run, checkpoint: Checkpoint) -> Manifest:
    """Copy the checkpoint to the next number whose place is free, or was taken by this cycle.

    A place without a row may be taken by a cycle that failed to verify. Its engine name may have
    been loaded, so it is never used again.
    """
    async with run.tools.database.transaction(write=False) as session:
        last = await versions.last_number(session, run.lease.tenant_id)
    for number in range(last + 1, last + 1 + MAX_NUMBERS):
        try:
            return await asyncio.to_thread(_write_as, run, checkpoint, number)
        except VersionExists:
            continue
        except PoisonedAdapter as error:
            if error.path != str(_version_dir(run, number)):
                raise CycleError(f"publish: {error.reason}") from error
    raise CycleError(f"publish: no free number after {last}")


def _write_as(run: Run, checkpoint: Checkpoint, number: int) -> Manifest:
    assert checkpoint.adapter_dir is not None
    return run.tools.store.publish(
        Path(checkpoint.adapter_dir),
        tenant_id=run.lease.tenant_id,
        number=number,
        engine_name=version_engine_name(run.lease.tenant_id, run.tenant, number),
        parent=run.incumbent.number,
        cycle_id=run.lease.cycle_id,
        base_digest=run.tools.base_digest,
        rank=run.tools.settings.lora_rank,
        alpha=run.tools.settings.lora_alpha,
        created_at=run.tools.clock.now(),
    )


async def _load(run: Run, manifest: Manifest) -> float:
    """Load the version on every engine; milliseconds until the last one has it."""
    number = manifest.number
    label, path = f"{run.tenant}--v{number}", str(_version_dir(run, number))
    version = VersionRef(number, manifest.engine_name, path, label)
    return await run.tools.sampler.patiently(lambda: run.tools.loader.load_everywhere(version))


async def _verify(
    run: Run, policy: Policy, checkpoint: Checkpoint, prompts: Sequence[Prompt]
) -> Verification:
    """Sample under the new name; the trainer, with the published files open, must agree."""
    asked = [prompt for prompt in prompts if prompt.messages][:VERIFY_PROMPTS]
    sampled = await sample_groups(run, policy, asked, num_samples=1, occasion="verify")
    samples = [train_sample(sample) for group in sampled.groups for sample in group.samples]
    published = Checkpoint(checkpoint.step, policy, policy.path, None)
    scores = await run.learner.score(published, samples)
    engine = [value for sample in samples for value in sample.inference_logprobs]
    verified = Verification(
        mismatch=_mean_difference(engine, scores.adapter),
        distance_to_base=_mean_difference(engine, scores.base),
        num_tokens=len(engine),
    )
    if verified.fault is not None:
        raise CycleError(f"verification: {verified.fault}")
    return verified


def _mean_difference(engine: Sequence[float], trainer: Sequence[Sequence[float]]) -> float:
    flat = [value for values in trainer for value in values]
    if not flat:
        raise CycleError("verification: no sample to compare")
    return fsum(abs(a - b) for a, b in zip(engine, flat, strict=True)) / len(flat)


async def go_live(run: Run, number: int) -> Ending:
    """Swap to the published version; the cycle ends in the same transaction.

    Raises:
        CycleCancelled: it was cancelled, or its tenant deleted, before the swap.
        LeaseLost: another worker has taken the cycle up; nothing is swapped.
    """
    await follow_orders(run)

    try:
        await run.tools.sampler.patiently(
            lambda: swap(
                run.tools.database,
                run.tools.loader,
                run.tools.clock,
                identity_dir=run.tools.identity_dir,
                warmer=run.tools.warmer,
                tenant_id=run.lease.tenant_id,
                to_version=number,
                reason="promoted",
                expected_live=run.incumbent.number,
                also=lambda session, _: cycles.finish(
                    session, run.lease, CycleStatus.PROMOTED, now=run.tools.clock.now()
                ),
            )
        )
    except NotFound:
        raise CycleCancelled("tenant_deleted") from None
    except Conflict:
        return await _overtaken(run, number)
    return Ending(CycleStatus.PROMOTED, stored=True)


async def _overtaken(run: Run, number: int) -> Ending:
    """Somebody moved the pointer meanwhile, perhaps to this very version."""
    async with run.tools.database.transaction() as session:
        tenant = await versions.tenant_for_update(session, run.lease.tenant_id)
    live = run.incumbent.number if tenant is None else tenant.live_version
    if live == number:
        return Ending(CycleStatus.PROMOTED)
    changed = f"incumbent_changed: version {live} is live, not {run.incumbent.number}"
    return Ending(CycleStatus.REJECTED, (changed,))
