"""More live versions than an engine keeps: cold ones are loaded again when they are asked for."""

from __future__ import annotations

import pytest

from server.engine.registry import AdapterRegistry
from tests.server.engine.conftest import IDENTITY, Engines, version

LOAD = "/v1/load_lora_adapter"
MAX_ADAPTERS = 3
LIVE = [version(f"t{tenant}-x--v1") for tenant in range(1, 7)]


@pytest.fixture
async def registry(engines: Engines) -> AdapterRegistry:
    engines.wanted = [IDENTITY, *LIVE]
    registry = AdapterRegistry(
        engines.pool, wanted=engines.read_wanted, max_adapters=MAX_ADAPTERS, clock=engines.clock
    )
    await registry.start()
    await engines.check()
    return registry


async def use(engines: Engines, registry: AdapterRegistry, tenant: int) -> None:
    """A request of the tenant on the first engine."""
    engines.now += 1
    engine, live = engines.pool.engines[0], LIVE[tenant - 1]
    with registry.lease(live):
        await engine.turns.take(live.engine_name, "")
        await registry.ensure(live, engine)
        assert live.engine_name in engines.fakes[0].adapters
        engine.turns.give_back(live.engine_name)


def names(*tenants: int) -> set[str]:
    """The identity adapter and tenants' versions."""
    return {"identity", *(f"t{tenant}-x--v1" for tenant in tenants)}


@pytest.mark.usefixtures("registry")
async def test_no_more_are_loaded_ahead_than_fit(engines: Engines) -> None:
    assert set(engines.fakes[0].adapters) == names(1, 2, 3)


async def test_a_cold_version_takes_the_place_of_the_coldest(
    engines: Engines, registry: AdapterRegistry
) -> None:
    for tenant in (2, 3, 1, 6):
        await use(engines, registry, tenant)
    assert set(engines.fakes[0].adapters) == names(3, 1, 6)


async def test_polls_do_not_bring_back_what_was_pushed_out(
    engines: Engines, registry: AdapterRegistry
) -> None:
    for tenant in (4, 5, 6):
        await use(engines, registry, tenant)
    loads = len(engines.fakes[0].received(LOAD))
    engines.now += 3600
    await engines.check()
    assert set(engines.fakes[0].adapters) == names(4, 5, 6)
    assert len(engines.fakes[0].received(LOAD)) == loads


async def test_a_new_engine_gets_what_was_used_last(
    engines: Engines, registry: AdapterRegistry
) -> None:
    for tenant in (4, 5, 6):
        await use(engines, registry, tenant)
    engines.fakes[0].restart()
    await engines.check()
    assert set(engines.fakes[0].adapters) == names(4, 5, 6)


async def test_a_promotion_may_be_one_too_many_until_the_next_poll(
    engines: Engines, registry: AdapterRegistry
) -> None:
    new = version("t1-x--v2")
    engines.now += 1
    await registry.load_everywhere(new)
    engines.wanted = [IDENTITY, new, *LIVE[1:]]
    await engines.check()
    assert all(len(fake.adapters) == 1 + MAX_ADAPTERS for fake in engines.fakes)
    assert all("t1-x--v2" in fake.adapters for fake in engines.fakes)
