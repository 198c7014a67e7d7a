"""One cycle under one lease: what was stored before, and where the weights stand.

A crash may come between any two of these; what is stored when, and who goes on from it:

| the crash comes | stored | the next claim |
|---|---|---|
| before the selection | nothing | selects |
| after it, before the baseline | selection | samples the baseline again, with the same seeds |
| while a step samples or votes | the steps before | opens the last checkpoint, redoes the step |
| while a batch is sampled ahead | the steps before | samples it from the newest weights |
| after the update, before its row | directories that no row names | redoes the step elsewhere |
| after the row | the step with its groups | goes on behind it; the engine loads on demand |
| after an early stop | all steps | stops again, with the same best step |
| while weights are averaged | all steps | averages again, elsewhere |
| while the candidate is evaluated | all steps | averages again, then evaluates again |
| after the verdict, before publication | decision, reports | averages again, then abides by it |
| after the directory, before its row | a directory that no row names | publishes it again |
| after the version's row | candidate_version | goes straight on to the swap |
| after the swap | the end: both are one transaction | nothing is left to do |

Step directories and engine names carry the fence of their claim (from the second claim on), so a
worker that lost its lease cannot write into, or load, what its successor made, and one name never
stands for two sets of weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from ttrl_client.types import CyclePhase, Learning, StopRules, TenantSettings

from adapters.batch import LearnerConfig
from adapters.store import StepDirs
from server.adaptation.learner import Checkpoint, Learner
from server.adaptation.sampler import Policy
from server.adaptation.stopping import EarlyStop, Measured, early_stop
from server.adaptation.tools import Tools
from server.adaptation.tracing import entered
from server.config import Settings
from server.db import cycles, steps, versions
from server.db.cycles import Lease
from server.db.models import Cycle, CycleStep
from server.errors import CycleCancelled, CycleError
from server.tenants import VersionRef, identity_ref, step_engine_name, version_ref

STEP_NAME = re.compile(r"--c([0-9]+)-s[0-9]+(?:-f[0-9]+)?$")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a cycle has come. `path` has the weights that each step sampled from."""

    steps_done: int
    idle_steps: int  # in a row without an update, up to now
    checkpoint: Checkpoint  # what goes on: the newest, or after an early stop the best
    before: Checkpoint  # what the last step went on from
    path: tuple[Checkpoint, ...] = ()
    measured: tuple[Measured, ...] = ()
    stop: EarlyStop | None = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What belongs to the cycle's reasons, whatever the gate says."""
        return () if self.stop is None else (self.stop.reason,)


@dataclass(frozen=True, slots=True)
class Run:
    """A cycle as this worker took it up. Fields are what was stored then; they do not follow."""

    tools: Tools
    learner: Learner
    lease: Lease
    tenant: str
    settings: TenantSettings
    seed: int
    incumbent: VersionRef
    progress: Progress
    selection: Mapping[str, Any] | None
    incumbent_report: Mapping[str, Any] | None
    candidate_report: Mapping[str, Any] | None
    decision: str | None
    reasons: Sequence[str]
    candidate_version: int | None
    # By fingerprint: how the model itself rewords prompts. Asked for once in a claim.
    rewordings: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def step_dirs(self, step: int) -> StepDirs:
        """Where this claim writes a step."""
        lease = self.lease
        dirs = self.tools.store.step_dirs(lease.tenant_id, lease.cycle_id, step)
        if lease.fence == 1:
            return dirs
        place = dirs.adapter.parent.with_name(f"{dirs.adapter.parent.name}-f{lease.fence}")
        return StepDirs(adapter=place / dirs.adapter.name, state=place / dirs.state.name)

    def step_policy(self, step: int) -> Policy:
        """What the engine calls this claim's weights of a step."""
        lease = self.lease
        name = step_engine_name(lease.tenant_id, self.tenant, lease.cycle_id, step)
        name = name if lease.fence == 1 else f"{name}-f{lease.fence}"
        return Policy(name, str(self.step_dirs(step).adapter))

    @property
    def cache_salt(self) -> str:
        """Keeps the tenant's prefix cache apart, as the gateway does."""
        return f"tenant-{self.lease.tenant_id}"


def cycle_of_step(engine_name: str) -> int | None:
    """The cycle that an engine's adapter is a training step of; None: it is none."""
    match = STEP_NAME.search(engine_name)
    return None if match is None else int(match[1])


async def resume(tools: Tools, lease: Lease) -> Run:
    """Take up a cycle where its rows say that it is.

    Raises:
        CycleCancelled: it was cancelled, or its tenant deleted.
        CycleError: its incumbent is gone, or its settings are of another release's making.
        LeaseLost: another worker has taken it up.
    """
    async with tools.database.transaction() as session:
        cycle = await cycles.cycle_by_id(session, lease.cycle_id)
        tenant = await versions.tenant_for_update(session, lease.tenant_id)
        if cycle is None or tenant is None:
            raise CycleCancelled("tenant_deleted")
        stored = cycle.parent_version
        number = tenant.live_version if stored is None else stored
        phase = cycle.phase or CyclePhase.SELECT.value
        await cycles.update_fenced(session, lease, parent_version=number, phase=phase)
        parent = await versions.version_row(session, lease.tenant_id, number)
        done = await steps.steps_of(session, lease.cycle_id)
    if parent is not None:
        incumbent = version_ref(tenant.name, parent)
    elif number == 0:
        incumbent = identity_ref(tenant.name, tools.identity_dir)
    else:
        raise CycleError(f"parent: there is no version {number}")
    try:
        settings = TenantSettings.model_validate(cycle.settings)
    except ValidationError as error:
        raise CycleError(f"settings: {error}") from error
    progress = progress_of(done, incumbent, settings.learning.stop)
    return _run(tools, lease, cycle, settings, tenant.name, incumbent, progress)


def _run(
    tools: Tools,
    lease: Lease,
    cycle: Cycle,
    settings: TenantSettings,
    tenant: str,
    incumbent: VersionRef,
    progress: Progress,
) -> Run:
    config = learner_config(tools.settings, settings.learning, seed=cycle.seed)
    return Run(
        tools=tools,
        learner=Learner(tools.trainer, config),
        lease=lease,
        tenant=tenant,
        settings=settings,
        seed=cycle.seed,
        incumbent=incumbent,
        progress=progress,
        selection=cycle.selection,
        incumbent_report=cycle.incumbent_report,
        candidate_report=cycle.candidate_report,
        decision=cycle.decision,
        reasons=tuple(cycle.reasons or ()),
        candidate_version=cycle.candidate_version,
    )


def learner_config(settings: Settings, learning: Learning, *, seed: int) -> LearnerConfig:
    """How the trainer is to learn, as the tenant has it."""
    return LearnerConfig(
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        learning_rate=learning.learning_rate,
        schedule=learning.schedule,
        warmup=learning.warmup,
        total_updates=learning.steps * learning.epochs * learning.minibatches,
        weight_decay=learning.weight_decay,
        max_grad_norm=learning.max_grad_norm,
        epochs=learning.epochs,
        minibatches=learning.minibatches,
        temperature=learning.temperature,
        clip_low=learning.clip_low,
        clip_high=learning.clip_high,
        dual_clip=learning.dual_clip,
        tis_cap=learning.tis_cap,
        kl_coef=learning.kl_coef,
        seed=seed,
    )


def progress_of(done: Sequence[CycleStep], incumbent: VersionRef, rules: StopRules) -> Progress:
    """Where the stored steps have led, and whether they stopped early."""
    start = Checkpoint(
        step=0,
        policy=Policy(incumbent.engine_name, incumbent.path),
        adapter_dir=incumbent.path if incumbent.number else None,
        state_dir=None,
    )
    progress = Progress(0, 0, start, start)
    for row in done:
        checkpoint = None
        if row.engine_name is not None and row.adapter_dir is not None:
            policy = Policy(row.engine_name, row.adapter_dir)
            checkpoint = Checkpoint(row.step, policy, row.adapter_dir, row.state_dir)
        progress = advance(progress, checkpoint, row.metrics, rules)
    return progress


def advance(
    progress: Progress,
    made: Checkpoint | None,
    metrics: Mapping[str, float],
    rules: StopRules,
) -> Progress:
    """One step further; `made` is None where the step made no update. After an early stop, the best
    weights are those that go on: all of the cycle's lie on disk until it ends.
    """
    sampled_from = progress.before if metrics.get("staleness") else progress.checkpoint
    path = (*progress.path, sampled_from)
    measured = (*progress.measured, Measured(sampled_from.step, metrics))
    stop = early_stop(measured, rules)
    checkpoint = made or progress.checkpoint
    if stop is not None:
        checkpoint = next(taken for taken in path if taken.step == stop.best_step)
    return Progress(
        steps_done=progress.steps_done + 1,
        idle_steps=0 if made else progress.idle_steps + 1,
        checkpoint=checkpoint,
        before=progress.checkpoint,
        path=path,
        measured=measured,
        stop=stop,
    )


async def follow_orders(run: Run) -> None:
    """Go on, or stop here.

    Raises:
        CycleCancelled: the cycle was cancelled, or its tenant deleted.
    """
    async with run.tools.database.transaction(write=False) as session:
        orders = await cycles.orders(session, run.lease)
    if orders.cancel:
        raise CycleCancelled(orders.reason or "cancel_requested")


async def enter(run: Run, phase: CyclePhase) -> None:
    """Say what the cycle is doing now.

    Raises:
        LeaseLost: another worker has taken it up.
    """
    async with run.tools.database.transaction() as session:
        await cycles.update_fenced(session, run.lease, phase=phase.value)
    entered(phase.value)
