"""The pool knows which engines can serve, and spreads requests."""

from __future__ import annotations

import asyncio

import pytest

from server.engine.pool import STALL_S, Engine, PutAside
from server.errors import EngineUnavailable
from tests.fakes.vllm import Fault
from tests.server.engine.conftest import Engines


async def test_an_engine_is_away_until_it_was_seen(engines: Engines) -> None:
    with pytest.raises(EngineUnavailable) as raised:
        engines.pool.pick()
    assert raised.value.retry_after_s


async def test_the_least_busy_engine_is_picked(engines: Engines) -> None:
    await engines.check()
    first = engines.pool.pick()
    with first.busy():
        second = engines.pool.pick()
        assert second is not first
        with second.busy(), second.busy():
            assert engines.pool.pick() is first
    assert (first.in_flight, second.in_flight) == (0, 0)


async def test_idle_engines_take_turns(engines: Engines) -> None:
    await engines.check()
    picked = [engines.pool.pick() for _ in range(4)]
    assert picked[:2] == picked[2:]
    assert picked[0] is not picked[1]


async def test_an_engine_that_goes_away_is_not_picked(engines: Engines) -> None:
    await engines.check()
    engines.networks[0].is_cut = True
    await engines.check()
    assert [engine.state for engine in engines.pool.engines] == ["away", "ready"]
    assert {engines.pool.pick().url for _ in range(4)} == {"http://e1"}


async def test_an_engine_that_is_ill_is_away(engines: Engines) -> None:
    engines.fakes[0].healthy = False
    await engines.check()
    assert [engine.state for engine in engines.pool.engines] == ["away", "ready"]


async def test_a_refused_connection_counts_before_the_next_poll(engines: Engines) -> None:
    await engines.check()
    engines.pool.set_state(engines.pool.engines[0], "away")
    assert engines.pool.pick().url == "http://e1"


async def test_an_engine_is_ready_when_it_was_reconciled(engines: Engines) -> None:
    answers = iter([False, True])

    async def reconcile(_engine: Engine) -> bool:
        return next(answers)

    engines.pool.reconcile = reconcile
    engine = engines.pool.engines[0]
    await engines.pool.check(engine)
    assert engine.state == "starting"
    await engines.pool.check(engine)
    assert engine.state == "ready"


async def test_polling_goes_on_after_an_error(engines: Engines) -> None:
    calls = 0

    async def reconcile(_engine: Engine) -> bool:
        nonlocal calls
        calls += 1
        if calls < 5:
            raise RuntimeError("a bug")
        return True

    engines.pool.reconcile = reconcile
    await engines.pool.start()
    async with asyncio.timeout(20):
        await engines.pool.wait_ready()
    assert calls >= 5


async def test_a_look_does_not_undo_a_load_that_it_overlapped(engines: Engines) -> None:
    engine = engines.pool.engines[0]
    seen = asyncio.Event()
    adapters = engine.client.adapters

    async def slow_adapters() -> dict[str, str | None]:
        names = await adapters()
        await seen.wait()
        return names

    engine.client.adapters = slow_adapters
    listed = len(engines.fakes[0].received("/v1/models"))
    look = asyncio.create_task(engine.look())
    await engines.fakes[0].called("/v1/models", listed + 1)
    await engine.load("t1-a--v1", "/adapters/1")
    seen.set()
    assert await look
    assert engine.loaded == {"t1-a--v1"}


async def test_an_engine_stays_ready_when_reconciling_fails(engines: Engines) -> None:
    await engines.check()

    async def reconcile(_engine: Engine) -> bool:
        return False

    engines.pool.reconcile = reconcile
    await engines.check()
    assert all(engine.state == "ready" for engine in engines.pool.engines)


async def test_a_look_finds_a_restart_that_a_load_overlapped(engines: Engines) -> None:
    engine, fake = engines.pool.engines[0], engines.fakes[0]
    await engine.load("t1-a--v1", "/adapters/1")
    fake.restart()
    hold = asyncio.Event()
    fake.script("/health", Fault(hold=hold))
    look = asyncio.create_task(engine.look())
    await fake.called("/health", 1)
    await engine.load("t1-a--v2", "/adapters/2")
    hold.set()
    assert await look
    assert engine.loaded == {"t1-a--v2"}


async def test_a_tenant_stays_with_its_engine(engines: Engines) -> None:
    await engines.check()
    usual = {f"tenant-{n}": engines.pool.pick(affinity=f"tenant-{n}") for n in range(40)}
    assert set(usual.values()) == set(engines.pool.engines)
    for tenant, engine in usual.items():
        assert engines.pool.pick(affinity=tenant) is engine


async def test_a_busy_engine_is_passed_over_in_spite_of_affinity(engines: Engines) -> None:
    await engines.check()
    usual = engines.pool.pick(affinity="tenant-1")
    usual.in_flight = 10
    other = engines.pool.pick(affinity="tenant-1")
    assert other is not usual
    other.in_flight = 9
    assert engines.pool.pick(affinity="tenant-1") is usual


async def test_an_engine_that_has_the_adapter_comes_first(engines: Engines) -> None:
    await engines.check()
    usual = engines.pool.pick(affinity="tenant-1")
    (other,) = (engine for engine in engines.pool.engines if engine is not usual)
    await other.load("t1-a--v1", "/adapters/1")
    assert engines.pool.pick("t1-a--v1", affinity="tenant-1") is other


async def test_those_that_were_tried_are_not_picked(engines: Engines) -> None:
    await engines.check()
    first, second = engines.pool.engines
    assert engines.pool.pick(without=[first]) is second
    with pytest.raises(EngineUnavailable):
        engines.pool.pick(without=[first, second])


async def test_an_engine_may_be_silent_for_a_while(engines: Engines) -> None:
    await engines.check()
    engines.networks[0].is_silent = True
    engines.now += 9
    await engines.check()
    assert [engine.state for engine in engines.pool.engines] == ["ready", "ready"]
    engines.now += 1
    await engines.check()
    assert [engine.state for engine in engines.pool.engines] == ["away", "ready"]
    assert engines.pool.aside == ["engine 1: The engine did not answer in time."]
    engines.networks[0].is_silent = False
    await engines.check()
    assert engines.pool.aside == []


async def test_waiting_ends_when_the_engine_is_put_aside(engines: Engines) -> None:
    await engines.check()
    engine = engines.pool.engines[0]

    async def wait() -> None:
        async with engine.waiting():
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    engines.pool.set_state(engine, "away", "a reason")
    with pytest.raises(PutAside):
        await waiting
    assert not engine.unanswered


async def test_waiting_goes_on_while_there_is_no_other_engine(engines: Engines) -> None:
    await engines.check()
    first, second = engines.pool.engines
    engines.pool.set_state(second, "away")
    answered = asyncio.Event()

    async def wait() -> str:
        async with first.waiting():
            await answered.wait()
        return "answered"

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    engines.pool.set_state(first, "away")
    answered.set()
    assert await waiting == "answered"


@pytest.mark.parametrize("lives", [True, False])
async def test_an_engine_that_answers_nothing_is_asked_whether_it_lives(
    engines: Engines, lives: bool
) -> None:
    await engines.check()
    engine = engines.pool.engines[0]

    async def is_alive(_engine: Engine) -> bool:
        return lives

    engines.pool.is_alive = is_alive
    with engine.busy():
        async with asyncio.timeout(None) as patience:
            engine.unanswered.add(patience)
            engine.heard_at -= 2 * STALL_S
            await engines.pool.check(engine)
            engine.unanswered.clear()
            patience.reschedule(None)
    assert engine.state == ("ready" if lives else "away")
