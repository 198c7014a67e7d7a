"""A tenant that learns on the session's server, from additions, in short cycles."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ttrl_client.types import Cycle, CycleStatus, Gate, Learning, Query, TenantSettings

from demo.questions import additions
from server.tenants import version_engine_name
from tests.e2e.live import LiveServer
from tests.e2e.traffic import Reply, Traffic, User, ask_each, traffic

LEARNING = Learning(
    steps=6,
    prompts_per_step=4,
    samples_per_prompt=12,
    max_tokens=64,
    learning_rate=1e-3,
    max_prompts=24,
    estimator="majority",  # any model has a label for most groups
    min_answers=2,
)
# The verdict is not the point: every candidate is measured, and promoted.
GATE = Gate(enabled=False, probe_prompts=4, samples_per_prompt=4)
NUM_LOGGED = 32
CYCLE_TIMEOUT_S = 400.0


@dataclass(frozen=True, slots=True)
class Learner:
    """A tenant with logged traffic, on the session's server."""

    live: LiveServer
    name: str
    key: str

    @classmethod
    def on(cls, live: LiveServer, name: str) -> Learner:
        """A new tenant that has asked some additions."""
        settings = TenantSettings(answer="math", learning=LEARNING, gate=GATE)
        _, key = live.make_tenant(name, settings=settings)
        questions = [question.text for question in additions(17, NUM_LOGGED)]
        assert all(reply.is_whole for reply in ask_each(live.base_url, key, questions))
        return cls(live, name, key)

    @property
    def live_version(self) -> int:
        """The version that the tenant's pointer names."""
        return self.live.admin.read_tenant(self.name).live_version

    @property
    def label(self) -> str:
        """The live version's public name."""
        return self.label_of(self.live_version)

    def label_of(self, number: int | None) -> str:
        """A version's public name."""
        return f"{self.name}--v{number}"

    @property
    def engine_name(self) -> str:
        """The live version's name in the engine."""
        tenant_id = self.live.admin.read_tenant(self.name).id
        return version_engine_name(tenant_id, self.name, self.live_version)

    def traffic(self, seed: int) -> AbstractContextManager[Traffic]:
        """Users that ask other additions for the length of the block."""
        return traffic(self.live.base_url, self.key, seed=seed)

    def cycle_with_steps(self, num_steps: int) -> Cycle:
        """A new cycle that has stored so many steps, and has more to do."""
        asked = self.live.admin.trigger_cycle(self.name, seed=7)
        now = self.live.wait_for(
            lambda: self._if(asked, lambda cycle: cycle.steps_done >= num_steps),
            f"step {num_steps}",
            CYCLE_TIMEOUT_S,
        )
        assert now.status == CycleStatus.RUNNING, now
        assert now.steps_done < LEARNING.steps
        return now

    def final(self, cycle: Cycle) -> Cycle:
        """The cycle when it has ended."""
        return self.live.wait_for(
            lambda: self._if(cycle, lambda now: now.is_final), "the cycle's end", CYCLE_TIMEOUT_S
        )

    def _if(self, cycle: Cycle, is_so: Callable[[Cycle], bool]) -> Cycle | None:
        now = self.live.admin.read_cycle(self.name, cycle.id)
        return now if is_so(now) else None

    def ask(self, question: str, **params: Any) -> Reply:
        """Ask once."""
        user = User(self.live.base_url, self.key)
        try:
            return user.ask(question, **params)
        finally:
            user.close()

    def wait_served_by(self, label: str) -> None:
        """Wait until the version answers: the pointer may be cached for half a second."""
        self.live.wait_for(lambda: self.ask("What is 12+34?").adapter == label, label, 10)

    def logged(self) -> list[Query]:
        """The whole log."""
        queries: list[Query] = []
        before = None
        while True:
            page = self.live.admin.list_queries(self.name, limit=200, before=before)
            queries += page.items
            if (before := page.next) is None:
                return queries
