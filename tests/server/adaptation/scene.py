"""A whole adaptation without a model: a fake engine that knows a little arithmetic, a fake trainer
that makes it know more, real everything else.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from ttrl_client.types import CycleStatus, TenantSettings

from adapters.answers import Equivalence
from adapters.store import AdapterStore
from server.adaptation.conduct import conduct
from server.adaptation.sampler import Sampler
from server.adaptation.tools import Tools
from server.config import Settings
from server.db import cycles, steps, versions
from server.db.cycles import Lease
from server.db.engine import Database
from server.db.models import AdapterVersion, Cycle, CycleStep, Group, Tenant
from server.engine.client import EngineClient
from server.engine.integrity import verifier
from server.engine.pool import EnginePool
from server.engine.registry import AdapterRegistry
from server.tenants import VersionRef
from tests.fakes.vllm import FakeVLLM
from tests.fakes.vllm_plan import Ask

from .conftest import HandClock, add_queries, add_tenant
from .fake_trainer import FakeTrainer, read_skill, write_adapter

ADDITION = re.compile(r"(\d+)\s*\+\s*(\d+)")
QUESTIONS = [f"What is {a} + {b}?" for a in range(10, 18) for b in range(20, 25)]
VIEWS = [
    {
        "pattern": r"(?P<a>\d+) \+ (?P<b>\d+)",
        "templates": ["Compute {a} + {b}.", "{a} + {b} = ?", "Add {b} to {a}: {a} + {b}"],
    }
]
LENIENT = {"min_view_agreement": 0, "min_gain": -1, "max_flip_rate": 1}  # a gate's


def settings_of(**changes: Any) -> TenantSettings:
    """Small and quick; `learning` and `gate` are merged into the defaults."""
    learning = {
        "steps": 3,
        "prompts_per_step": 4,
        "samples_per_prompt": 12,
        "max_tokens": 64,
        "min_prompts": 4,
        "min_answers": 4,
        "learning_rate": 1e-3,
    }
    gate = {"probe_fraction": 0.3, "min_probe_prompts": 3, "probe_prompts": 8}
    return TenantSettings.model_validate(
        {
            "answer": changes.pop("answer", "number"),
            "views": changes.pop("views", VIEWS),
            "learning": learning | changes.pop("learning", {}),
            "gate": gate | {"samples_per_prompt": 12} | changes.pop("gate", {}),
            **changes,
        }
    )


@dataclass
class Arithmetic:
    """Answers additions rightly with the probability that the adapter's skill says."""

    base_skill: float = 0.6
    wrong: Callable[[Ask, int, random.Random], int] = lambda ask, right, dice: (
        right + dice.randint(1, 9)
    )
    asked: list[Ask] = field(default_factory=list[Ask])

    def __call__(self, ask: Ask) -> str:
        self.asked.append(ask)
        match = ADDITION.findall(ask.prompt)[-1]
        right = int(match[0]) + int(match[1])
        skill = self.base_skill
        if ask.adapter_path is not None:
            skill += read_skill(Path(ask.adapter_path))
        dice = random.Random(f"{ask.seed}:{ask.index}:{ask.prompt}:{skill:.3f}")
        answer = right if dice.random() < skill else self.wrong(ask, right, dice)
        return rf"so \boxed{{{answer}}}"


@dataclass
class Scene:
    """One worker's world around one tenant."""

    database: Database
    clock: HandClock
    fake: FakeVLLM
    model: Arithmetic
    trainer: FakeTrainer
    pool: EnginePool
    tools: Tools
    tenant_id: int = 0

    async def tenant(self, name: str = "adder", questions: list[str] | None = None) -> int:
        self.tenant_id = await add_tenant(self.database, name)
        await add_queries(self.database, self.tenant_id, questions or QUESTIONS)
        return self.tenant_id

    async def enqueue(self, settings: TenantSettings | None = None, *, seed: int = 7) -> int:
        async with self.database.transaction() as session:
            cycle = await cycles.enqueue(
                session,
                tenant_id=self.tenant_id,
                trigger="manual",
                settings=settings or settings_of(),
                seed=seed,
                now=self.clock.now(),
            )
        return cycle.id

    async def claim(self, owner: str = "one", *, in_s: float = 0) -> Lease:
        now = self.clock.now() + timedelta(seconds=in_s)
        async with self.database.transaction() as session:
            claimed = await cycles.claim(session, owner=owner, now=now, lease_s=15)
        assert claimed is not None
        return claimed[0]

    async def take_over(self, owner: str = "two") -> Lease:
        """Another worker, after the lease of the first has run out."""
        return await self.claim(owner, in_s=16)

    async def conduct(self, lease: Lease) -> CycleStatus | None:
        return await conduct(self.tools, lease)

    async def run(self, settings: TenantSettings | None = None, *, seed: int = 7) -> Cycle:
        cycle_id = await self.enqueue(settings, seed=seed)
        await self.conduct(await self.claim())
        return await self.cycle(cycle_id)

    async def cycle(self, cycle_id: int) -> Cycle:
        async with self.database.transaction(write=False) as session:
            cycle = await cycles.cycle_by_id(session, cycle_id)
        assert cycle is not None
        return cycle

    async def steps(self, cycle_id: int) -> list[CycleStep]:
        async with self.database.transaction(write=False) as session:
            return list(await steps.steps_of(session, cycle_id))

    async def groups(self, cycle_id: int) -> list[Group]:
        async with self.database.transaction(write=False) as session:
            return list(await steps.groups_of(session, cycle_id))

    async def live(self) -> int:
        async with self.database.transaction(write=False) as session:
            tenant = await session.get(Tenant, self.tenant_id)
        assert tenant is not None
        return tenant.live_version

    async def versions(self) -> list[AdapterVersion]:
        async with self.database.transaction(write=False) as session:
            return await versions.versions_of(session, self.tenant_id)


@asynccontextmanager
async def make_scene(database: Database, clock: HandClock, root: Path) -> AsyncGenerator[Scene]:
    """A scene whose engine is ready; pass the same root for another worker's."""
    settings = Settings(data_dir=root, engine_urls=("http://engine",), engine_start_timeout_s=5)
    identity = settings.adapters_dir / "base" / "identity"
    write_adapter(identity, 0.0)
    model = Arithmetic()
    fake = FakeVLLM(default_answer=model)
    fake.adapters["identity"] = str(identity)

    def client(url: str) -> EngineClient:
        return EngineClient(url, transport=httpx.ASGITransport(app=fake))

    pool = EnginePool(settings.engine_urls, poll_s=1, client_factory=client)
    await pool.check(pool.engines[0])
    trainer = FakeTrainer()
    store = AdapterStore(settings.adapters_dir)
    verify = verifier(store)
    with Equivalence() as judge:
        tools = Tools(
            settings=settings,
            database=database,
            clock=clock,
            sampler=Sampler(pool, patience_s=settings.engine_start_timeout_s, verify=verify),
            loader=AdapterRegistry(pool, wanted=_no_versions, verify=verify),
            trainer=trainer,
            judge=judge,
            store=store,
            identity_dir=identity,
            base_digest="0" * 64,
        )
        yield Scene(database, clock, fake, model, trainer, pool, tools)
    await pool.stop()


async def _no_versions() -> list[VersionRef]:
    return []
