"""The acts against a scripted admin API and scripted users."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from rich.console import Console
from ttrl_client import AsyncTTRLClient
from ttrl_client.types import Page, Query, Swap, Tenant, TenantSettings, Version

from demo import plan
from demo.asking import Asker, Exchange
from demo.server_process import DemoFailed
from demo.show import Show
from demo.stage import Stage, within
from tests.demo.conftest import cycle_of, query_of, swap_of

MOVES = {"promoted": 1, "rolled_back": 0, "promoted_by_hand": 1}


class World:
    """A server in a nutshell: one pointer a tenant, a log, and cycles that end after some reads."""

    def __init__(self) -> None:
        self.live = {"adder": 0, "novice": 0}
        self.swaps: list[Swap] = []  # the adder's, newest first
        self.logged: dict[str, list[Query]] = {"adder": [], "novice": []}
        self.reads = {"adder": 0, "novice": 0}
        self.promotes = True
        self.is_stuck = False

    def admin(self, request: httpx.Request) -> httpx.Response:
        """The admin API's routes that the demo uses."""
        _, _, _, _, tenant, *rest = request.url.path.split("/")
        answers: dict[str, Callable[[], str]] = {
            "": lambda: self._tenant(tenant),
            "cycles": lambda: self._cycle(tenant, is_new=request.method == "POST"),
            "rollback": lambda: self._move("rolled_back"),
            "promote": lambda: self._move("promoted_by_hand"),
            "swaps": lambda: self._page(Swap, self.swaps if tenant == "adder" else [], request),
            "queries": lambda: self._page(Query, self.logged[tenant], request),
            "versions": self._version,
        }
        content = answers[rest[0] if rest else ""]()
        return httpx.Response(200, content=content, request=request)

    def _tenant(self, tenant: str) -> str:
        return Tenant(
            id=1,
            name=tenant,
            settings=TenantSettings(),
            live_version=self.live[tenant],
            previous_version=None,
            num_queries=len(self.logged[tenant]),
            active_cycle=None,
            created_at=_now(),
        ).model_dump_json()

    def _version(self) -> str:
        return Version(
            number=1,
            live=True,
            parent=0,
            cycle_id=1,
            manifest_digest="0" * 64,
            report={"load_ms": 8.0},
            created_at=_now(),
        ).model_dump_json()

    def _cycle(self, tenant: str, *, is_new: bool) -> str:
        running = {"status": "running", "phase": "train", "decision": None, "steps_done": 3}
        self.reads[tenant] += not is_new
        if is_new or self.is_stuck or self.reads[tenant] < 2:
            return cycle_of(tenant, **running).model_dump_json()
        if tenant == "adder" and self.promotes:
            self._move("promoted")
            return cycle_of(tenant).model_dump_json()
        return cycle_of(tenant, status="rejected", decision="rejected").model_dump_json()

    def _move(self, reason: str) -> str:
        before, self.live["adder"] = self.live["adder"], MOVES[reason]
        swap = swap_of(
            "adder", MOVES[reason], 0, from_version=before, reason=reason, created_at=_now()
        )
        self.swaps.insert(0, swap)
        return swap.model_dump_json()

    def _page(self, kind: type[Any], items: list[Any], request: httpx.Request) -> str:
        """Pages of at most two items."""
        start = int(request.url.params.get("before", "0"))
        rest = items[start : start + 2]
        following = str(start + 2) if start + 2 < len(items) else None
        return Page[kind](items=rest, next=following).model_dump_json()


class _User(Asker):
    """Asks the world instead of an endpoint."""

    def __init__(self, tenant: str, world: World) -> None:
        self.tenant = tenant
        self.world = world

    async def ask(
        self, question: str, *, samples: int = 1, stream: bool = False, store: bool = True
    ) -> Exchange:
        logged, version = self.world.logged[self.tenant], self.world.live[self.tenant]
        request_id = f"chatcmpl-{self.tenant}-{len(logged)}"
        if store:
            logged.insert(0, query_of(request_id, version))
        return Exchange(
            tenant=self.tenant,
            started_at=_now(),
            ended_at=_now(),
            streamed=stream,
            stored=store,
            request_id=request_id if store else None,
            adapter=f"{self.tenant}--v{version}",
            texts=("\\boxed{0}",) * samples,
            problem=None,
        )


def _now() -> datetime:
    return datetime.now(UTC)


def _no_check() -> None:
    """The server lives."""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(plan, "BRISK_PER_S", 500.0)
    monkeypatch.setattr("demo.stage.POLL_S", 0.02)
    return World()


def _stage(world: World, check_server: Callable[[], None] = _no_check) -> Stage:
    admin = AsyncTTRLClient(
        "http://server", admin_key="key", transport=httpx.MockTransport(world.admin)
    )
    users = {player.name: _User(player.name, world) for player in plan.PLAYERS}
    show = Show(Console(file=io.StringIO()), live=False)
    return Stage(admin, users, show, check_server)


async def test_the_first_traffic_is_logged_for_both_tenants(world: World) -> None:
    stage = _stage(world)
    await stage.send_traffic()
    counts = {tenant: len(logged) for tenant, logged in world.logged.items()}
    assert counts == dict.fromkeys(counts, plan.LEARNED_QUESTIONS)


async def test_measuring_leaves_no_trace_in_the_log(world: World) -> None:
    stage = _stage(world)
    before, after = await stage.measure_before(), await stage.measure_after()
    assert world.logged == {"adder": [], "novice": []}
    assert {m.questions for m in (*before.values(), *after.values())} == {plan.MEASURED_QUESTIONS}
    assert (before["novice"].samples_per_question, after["adder"].samples_per_question) == (4, 16)


async def test_adapting_swaps_to_and_fro_under_traffic_and_all_requests_check_out(
    world: World,
) -> None:
    stage = _stage(world)
    adaptation = await stage.adapt()
    assert {name: str(cycle.status) for name, cycle in adaptation.cycles.items()} == {
        "adder": "promoted",
        "novice": "rejected",
    }
    assert adaptation.swap is not None
    assert adaptation.swap.is_proven
    assert (adaptation.swap.load_ms, adaptation.swap.flip_ms) == (8.0, 1.5)
    assert await stage.live_versions() == {"adder": 1, "novice": 0}
    requests = await stage.check_requests(adaptation.cycles_ran)
    assert requests.total > requests.while_cycles_ran > 0
    assert (requests.failed, requests.wrong_version, requests.not_logged) == (0, 0, 0)


async def test_a_lost_row_is_noticed(world: World) -> None:
    stage = _stage(world)
    adaptation = await stage.adapt()
    world.logged["adder"].pop()
    assert (await stage.check_requests(adaptation.cycles_ran)).not_logged == 1


async def test_without_a_promotion_nothing_is_rolled_back(world: World) -> None:
    world.promotes = False
    adaptation = await _stage(world).adapt()
    assert adaptation.swap is None
    assert world.swaps == []


async def test_a_server_that_ends_meanwhile_ends_the_demo(world: World) -> None:
    world.is_stuck = True

    def ended() -> None:
        raise DemoFailed("The server ended with 1.")

    with pytest.raises(DemoFailed, match="ended with 1"):
        await _stage(world, ended).adapt()


async def test_adaptation_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.is_stuck = True
    monkeypatch.setattr(plan, "ADAPTATION_TIMEOUT_S", 0.05)
    with pytest.raises(DemoFailed, match="adaptation took longer than 0 s"):
        await _stage(world).adapt()


async def test_an_act_in_time_is_not_disturbed() -> None:
    async with within(60, "nothing"):
        pass
