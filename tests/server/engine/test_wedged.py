"""An engine that hangs is put aside with a reason, holds up nobody for ever, and comes back only
when it has what the others have.
"""

from __future__ import annotations

import asyncio

import pytest

from server.engine.probe import ModelProbe
from server.engine.registry import AdapterRegistry
from server.errors import EngineUnavailable
from tests.fakes.vllm import Fault
from tests.server.engine.conftest import IDENTITY, Engines, version

LOAD, COMPLETIONS = "/v1/load_lora_adapter", "/v1/completions"
V1, V2 = version("t1-a--v1"), version("t1-a--v2")


@pytest.fixture
async def registry(engines: Engines) -> AdapterRegistry:
    """One that waits for hardly anything."""
    registry = AdapterRegistry(
        engines.pool,
        wanted=engines.read_wanted,
        load_timeout_s=0.05,
        probe=ModelProbe(timeout_s=0.5),
        clock=engines.clock,
    )
    await registry.start()
    await engines.check()
    return registry


def hang() -> Fault:
    """A request that is never answered."""
    return Fault(hold=asyncio.Event())


async def test_a_load_that_hangs_does_not_hold_up_a_swap(
    engines: Engines, registry: AdapterRegistry
) -> None:
    wedged, well = engines.pool.engines
    engines.fakes[0].script(LOAD, hang())
    async with asyncio.timeout(20):
        await registry.load_everywhere(V1)
    assert "t1-a--v1" in engines.fakes[1].adapters
    assert (wedged.state, well.state) == ("away", "ready")
    assert engines.pool.aside == ["engine 1: It did not load an adapter in time."]


async def test_it_comes_back_with_what_was_swapped_meanwhile(
    engines: Engines, registry: AdapterRegistry
) -> None:
    wedged, fake = engines.pool.engines[0], engines.fakes[0]
    fake.script(LOAD, hang(), hang())
    await registry.load_everywhere(V1)
    engines.wanted.append(V1)
    await engines.pool.check(wedged)
    assert wedged.state == "away"
    await engines.pool.check(wedged)
    assert wedged.state == "ready"
    assert "t1-a--v1" in fake.adapters


async def test_stale_versions_are_gone_when_it_comes_back(
    engines: Engines, registry: AdapterRegistry
) -> None:
    await registry.load_everywhere(V1)
    engines.networks[0].is_cut = True
    await engines.check()
    engines.wanted.append(V2)
    engines.networks[0].is_cut = False
    await engines.check()
    engines.now += 3600
    await engines.check()
    assert all(set(fake.adapters) == {"identity", "t1-a--v2"} for fake in engines.fakes)


async def test_a_swap_fails_when_every_engine_hangs(
    engines: Engines, registry: AdapterRegistry
) -> None:
    for fake in engines.fakes:
        fake.script(LOAD, hang())
    with pytest.raises(EngineUnavailable):
        await registry.load_everywhere(V1)


@pytest.mark.usefixtures("registry")
async def test_an_engine_that_does_not_generate_does_not_come_back(engines: Engines) -> None:
    wedged, fake = engines.pool.engines[0], engines.fakes[0]
    engines.pool.set_state(wedged, "away", "put aside")
    fake.script(COMPLETIONS, hang())
    await engines.pool.check(wedged)
    assert engines.pool.aside == ["engine 1: It does not generate."]
    await engines.pool.check(wedged)
    assert wedged.state == "ready"


@pytest.mark.usefixtures("registry")
async def test_an_engine_with_another_model_gets_no_requests(engines: Engines) -> None:
    engine, fake = engines.pool.engines[0], engines.fakes[0]
    fake.restart()
    fake.answers["identity"] = "another model's answer"
    await engines.pool.check(engine)
    assert engine.state == "away"
    assert engine.reason == "Its model is not the one that the other engines serve."
    del fake.answers["identity"]
    await engines.pool.check(engine)
    assert engine.state == "ready"


@pytest.mark.usefixtures("registry")
async def test_all_engines_may_change_their_model_together(engines: Engines) -> None:
    for engine, fake in zip(engines.pool.engines, engines.fakes, strict=True):
        engines.pool.set_state(engine, "away")
        fake.answers["identity"] = "another model's answer"
    await engines.check()
    assert all(engine.state == "ready" for engine in engines.pool.engines)


@pytest.mark.usefixtures("registry")
async def test_of_engines_that_start_together_with_two_models_one_serves(engines: Engines) -> None:
    for engine in engines.pool.engines:
        engines.pool.set_state(engine, "away")
    engines.fakes[0].answers["identity"] = "another model's answer"
    await asyncio.gather(*(engines.pool.check(engine) for engine in engines.pool.engines))
    assert sorted(engine.state for engine in engines.pool.engines) == ["away", "ready"]


async def test_a_swap_reaches_only_those_that_are_well(
    engines: Engines, registry: AdapterRegistry
) -> None:
    engines.networks[1].is_silent = True
    engines.now += 3600
    await engines.check()
    await registry.load_everywhere(V1)
    assert [set(fake.adapters) for fake in engines.fakes] == [
        {"identity", "t1-a--v1"},
        {"identity"},
    ]
    assert engines.wanted == [IDENTITY]
