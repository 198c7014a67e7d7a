"""What users notice of an adaptation: their latency with one running and without, in turns.

The whole server runs as its operator runs it: engine, worker and trainer on this machine's cores.
One user asks at a steady rate, whole answers and streams; requests count for a phase if they ran in
it from beginning to end.

    python -m benchmarks.contention [--rounds 5] [--phase-s 40]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from ttrl_client.types import Cycle, CycleStatus, Gate, Learning, TenantSettings

from benchmarks.result import Claim, show_claims, write_result
from demo.questions import additions
from server.config import Settings
from tests.e2e.live import CHAT, LiveServer, question_body
from tests.e2e.traffic import ask_each

RATE = 2.0  # requests a second
MAX_TOKENS = 64
NUM_LOGGED = 64
SETTLE_S = 3.0
START_TIMEOUT_S = 120.0
# Long enough never to end within a phase; its verdict is not the point.
LEARNING = Learning(steps=200, prompts_per_step=8, samples_per_prompt=16, max_tokens=64)
GATE = Gate(enabled=False, probe_prompts=4, samples_per_prompt=4)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; times are monotonic seconds."""

    started: float
    ended: float
    is_whole: bool

    @property
    def ms(self) -> float:
        """How long it took."""
        return (self.ended - self.started) * 1e3


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of time with or without an adaptation."""

    is_learning: bool
    asked: tuple[Asked, ...]
    steps: int  # training steps that were finished in it

    @property
    def p50(self) -> float:
        """Median latency of whole answers, ms."""
        return median(one.ms for one in self.asked if one.is_whole)


class User:
    """Asks additions at a steady rate, however long the answers take."""

    def __init__(self, live: LiveServer, key: str) -> None:
        self._http = live.http(key)
        self._questions = [question.text for question in additions(23, 400)]
        self._number = 0

    async def ask_for(self, seconds: float) -> tuple[Asked, ...]:
        """Ask for so long; the requests that were begun, all ended."""
        due, over = time.monotonic(), time.monotonic() + seconds
        asking: list[asyncio.Task[Asked]] = []
        while due < over:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            asking.append(asyncio.create_task(self._ask()))
            due += 1 / RATE
        return tuple(await asyncio.gather(*asking))

    async def _ask(self) -> Asked:
        self._number += 1
        question = self._questions[self._number % len(self._questions)]
        body = question_body(
            question, stream=self._number % 2 == 0, max_tokens=MAX_TOKENS, temperature=0
        )
        started = time.monotonic()
        try:
            response = await self._http.post(CHAT, json=body)
            is_whole = response.status_code == 200 and '"error"' not in response.text
        except httpx.TransportError:
            is_whole = False
        return Asked(started, time.monotonic(), is_whole)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


async def measure(live: LiveServer, *, rounds: int, phase_s: float) -> list[Phase]:
    """Phases with and without an adaptation of another tenant, in turns first."""
    settings = TenantSettings(answer="math", learning=LEARNING, gate=GATE)
    _, learner_key = live.make_tenant("learner", settings=settings)
    questions = [question.text for question in additions(17, NUM_LOGGED)]
    await asyncio.to_thread(ask_each, live.base_url, learner_key, questions)
    _, key = live.make_tenant("quiet")
    user = User(live, key)
    await user.ask_for(SETTLE_S)
    phases: list[Phase] = []
    for number in range(rounds):
        for is_learning in (True, False) if number % 2 else (False, True):
            phases.append(await _phase(live, user, is_learning, phase_s))
    await user.close()
    return phases


async def _phase(live: LiveServer, user: User, is_learning: bool, seconds: float) -> Phase:
    if not is_learning:
        await asyncio.sleep(SETTLE_S)
        return Phase(False, await user.ask_for(seconds), 0)
    cycle = live.admin.trigger_cycle("learner")
    begun = await _until(live, cycle, lambda now: now.status == CycleStatus.RUNNING)
    asked = await user.ask_for(seconds)
    now = live.admin.read_cycle("learner", cycle.id)
    if now.is_final:
        raise RuntimeError(f"The cycle ended early: {now}")
    live.admin.cancel_cycle("learner", cycle.id)
    await _until(live, cycle, lambda now: now.is_final)
    return Phase(True, asked, now.steps_done - begun.steps_done)


async def _until(live: LiveServer, cycle: Cycle, is_so: Callable[[Cycle], bool]) -> Cycle:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_so(now := live.admin.read_cycle("learner", cycle.id)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"Waited too long: {now}")
        await asyncio.sleep(0.1)
    return now


def report(phases: Sequence[Phase]) -> tuple[list[Claim], dict[str, Any]]:
    """The claims, and the phases behind them."""
    by_kind = {kind: [p.p50 for p in phases if p.is_learning is kind] for kind in (False, True)}
    without, with_learning = median(by_kind[False]), median(by_kind[True])
    lost = sum(not one.is_whole for phase in phases for one in phase.asked)
    claims = [
        Claim(
            "users' p50 with an adaptation over without", with_learning / without, "x", "<=", 1.25
        ),
        Claim("failed requests", lost, "", "==", 0),
        Claim("training steps meanwhile", sum(p.steps for p in phases), "", ">=", 1),
    ]
    rows = [
        {"learning": p.is_learning, "p50_ms": round(p.p50, 1), "n": len(p.asked), "steps": p.steps}
        for p in phases
    ]
    data = {"rate_per_s": RATE, "max_tokens": MAX_TOKENS, "phases": rows}
    return claims, data


async def main() -> None:
    """Run it and write `benchmarks/results/contention.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--phase-s", type=float, default=40.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        # The product's own niceness of the trainer, not the tests'.
        live = LiveServer(Path(name), trainer_nice=Settings().trainer_nice)
        try:
            await asyncio.to_thread(live.start)
            phases = await measure(live, rounds=options.rounds, phase_s=options.phase_s)
        finally:
            await asyncio.to_thread(live.stop)
    claims, data = report(phases)
    path = write_result("contention", claims, data)
    show_claims(claims)
    print(path)


if __name__ == "__main__":
    asyncio.run(main())
