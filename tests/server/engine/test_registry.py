"""The registry brings engines to what the tenants' pointers say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from server.engine.integrity import VersionLike
from server.engine.registry import RETRY_FAILED_S, AdapterRegistry
from server.errors import AdapterDamaged, EngineFailed, EngineUnavailable
from tests.fakes.vllm import Fault
from tests.server.engine.conftest import IDENTITY, Engines, Version, version

LOAD = "/v1/load_lora_adapter"
V1, V2, V3 = version("t1-a--v1"), version("t1-a--v2"), version("t1-a--v3")
KEEP_S = 60.0


@pytest.fixture
async def registry(engines: Engines) -> AdapterRegistry:
    registry = AdapterRegistry(
        engines.pool,
        wanted=engines.read_wanted,
        keep_s=KEEP_S,
        max_adapters=4,
        clock=engines.clock,
    )
    await registry.start()
    return registry


@pytest.mark.usefixtures("registry")
async def test_live_versions_are_loaded_before_an_engine_is_ready(engines: Engines) -> None:
    engines.wanted = [IDENTITY, V1]
    hold = asyncio.Event()
    engines.fakes[0].script(LOAD, Fault(), Fault(hold=hold))
    engine = engines.pool.engines[0]
    checking = asyncio.create_task(engines.pool.check(engine))
    await engines.fakes[0].called(LOAD, 2)
    assert engine.state == "starting"
    hold.set()
    await checking
    assert engine.state == "ready"
    assert set(engines.fakes[0].adapters) == {"identity", "t1-a--v1"}


@pytest.mark.usefixtures("registry")
async def test_a_new_version_is_loaded_while_the_engine_stays_ready(engines: Engines) -> None:
    await engines.check()
    engines.wanted.append(V1)
    await engines.check()
    assert all(engine.state == "ready" for engine in engines.pool.engines)
    assert all("t1-a--v1" in fake.adapters for fake in engines.fakes)


@pytest.mark.usefixtures("registry")
async def test_a_restarted_engine_gets_everything_back_before_it_is_ready(
    engines: Engines,
) -> None:
    engines.wanted = [IDENTITY, V1]
    await engines.check()
    engine, fake = engines.pool.engines[0], engines.fakes[0]
    fake.restart()
    fake.script(LOAD, Fault(status=503))
    await engines.pool.check(engine)
    assert engine.state == "starting"
    await engines.pool.check(engine)
    assert engine.state == "ready"
    assert set(fake.adapters) == {"identity", "t1-a--v1"}


async def test_a_version_that_cannot_be_loaded_fails_alone(
    engines: Engines, registry: AdapterRegistry
) -> None:
    engines.wanted = [IDENTITY, V1, V2]
    engines.fakes[0].script(LOAD, Fault(), Fault(status=500, message="torn file"))
    await engines.check()
    engine = engines.pool.engines[0]
    assert engine.state == "ready"
    assert engine.loaded == {"identity", "t1-a--v2"}
    assert [failure.engine_name for failure in registry.failures] == ["t1-a--v1"]
    assert "torn file" in registry.failures[0].reason
    with pytest.raises(EngineUnavailable, match="a--v1 cannot be loaded"):
        await registry.ensure(V1, engine)
    await registry.ensure(V2, engine)


async def test_a_failed_version_is_tried_again_later(
    engines: Engines, registry: AdapterRegistry
) -> None:
    engines.wanted = [IDENTITY, V1]
    engines.fakes[0].script(LOAD, Fault(), Fault(status=500))
    await engines.check()
    engines.now += RETRY_FAILED_S
    await engines.check()
    assert registry.failures == []
    assert "t1-a--v1" in engines.fakes[0].adapters


@pytest.mark.usefixtures("registry")
async def test_a_superseded_version_is_unloaded_after_a_while(engines: Engines) -> None:
    engines.wanted = [IDENTITY, V1]
    await engines.check()
    engines.wanted = [IDENTITY, V2]
    await engines.check()
    engines.now += KEEP_S - 1
    await engines.check()
    assert "t1-a--v1" in engines.fakes[0].adapters
    engines.now += 1
    await engines.check()
    assert all(set(fake.adapters) == {"identity", "t1-a--v2"} for fake in engines.fakes)


async def test_a_version_in_use_is_not_unloaded(
    engines: Engines, registry: AdapterRegistry
) -> None:
    engines.wanted = [IDENTITY, V1]
    await engines.check()
    engines.wanted = [IDENTITY]
    with registry.lease(V1), registry.lease(V1):
        await engines.check()
        engines.now += 10 * KEEP_S
        await engines.check()
    await engines.check()
    assert "t1-a--v1" in engines.fakes[0].adapters  # the time begins with the last use
    engines.now += KEEP_S
    await engines.check()
    assert "t1-a--v1" not in engines.fakes[0].adapters


@pytest.mark.usefixtures("registry")
async def test_a_rolled_back_version_stays(engines: Engines) -> None:
    engines.wanted = [IDENTITY, V1]
    await engines.check()
    engines.wanted = [IDENTITY, V2]
    await engines.check()
    engines.wanted = [IDENTITY, V1]
    engines.now += KEEP_S
    await engines.check()
    engines.now += KEEP_S
    await engines.check()
    assert "t1-a--v1" in engines.fakes[0].adapters


@pytest.mark.usefixtures("registry")
async def test_training_steps_and_strangers_are_left_alone(engines: Engines) -> None:
    engines.fakes[0].adapters |= {"t1-a--c4-s2": "/steps/2", "by-hand": "/by/hand"}
    await engines.check()
    engines.now += 10 * KEEP_S
    await engines.check()
    assert {"t1-a--c4-s2", "by-hand"} <= set(engines.fakes[0].adapters)


async def test_a_pinned_version_is_loaded_once_for_many(
    engines: Engines, registry: AdapterRegistry
) -> None:
    await engines.check()
    engine, fake = engines.pool.engines[0], engines.fakes[0]
    await asyncio.gather(*(registry.ensure(V3, engine) for _ in range(20)))
    names = [received.body["lora_name"] for received in fake.received(LOAD)]
    assert names == ["identity", "t1-a--v3"]


async def test_pinned_versions_make_room_for_each_other(
    engines: Engines, registry: AdapterRegistry
) -> None:
    await engines.check()
    engine = engines.pool.engines[0]
    for number in range(10, 16):
        engines.now += 1
        await registry.ensure(version(f"t1-a--v{number}"), engine)
    assert engine.loaded == {"identity", *(f"t1-a--v{number}" for number in range(12, 16))}
    assert set(engines.fakes[0].adapters) == engine.loaded


async def test_too_many_versions_in_use_are_refused(
    engines: Engines, registry: AdapterRegistry
) -> None:
    await engines.check()
    engine = engines.pool.engines[0]
    names = [f"t1-a--v{number}" for number in range(10, 14)]
    for name in names:
        await engine.turns.take(name, "tenant-1")
        await registry.ensure(version(name), engine)
    with pytest.raises(EngineUnavailable, match="Too many"):
        await registry.ensure(V1, engine)
    engine.turns.give_back(names[0])
    await registry.ensure(V1, engine)
    assert engine.loaded == {"identity", "t1-a--v1", *names[1:]}


async def test_a_version_that_the_engine_forgot_is_loaded_again(
    engines: Engines, registry: AdapterRegistry
) -> None:
    await engines.check()
    engine, fake = engines.pool.engines[0], engines.fakes[0]
    await registry.ensure(V1, engine)
    del fake.adapters["t1-a--v1"]
    registry.forget(V1, engine)
    await registry.ensure(V1, engine)
    assert "t1-a--v1" in fake.adapters


async def test_load_everywhere_reaches_every_ready_engine(
    engines: Engines, registry: AdapterRegistry
) -> None:
    await engines.check()
    assert await registry.load_everywhere(V1) >= 0
    assert all("t1-a--v1" in fake.adapters for fake in engines.fakes)


async def test_load_everywhere_survives_an_engine_that_goes_away(
    engines: Engines, registry: AdapterRegistry
) -> None:
    await engines.check()
    engines.networks[0].is_cut = True
    await registry.load_everywhere(V1)
    assert "t1-a--v1" in engines.fakes[1].adapters


async def test_load_everywhere_needs_an_engine(engines: Engines, registry: AdapterRegistry) -> None:
    with pytest.raises(EngineUnavailable):
        await registry.load_everywhere(V1)


async def test_load_everywhere_says_when_the_files_are_refused(
    engines: Engines, registry: AdapterRegistry
) -> None:
    await engines.check()
    engines.fakes[1].script(LOAD, Fault(status=500, message="torn file"))
    with pytest.raises(EngineFailed, match="torn file"):
        await registry.load_everywhere(V1)


@pytest.mark.usefixtures("registry")
async def test_engines_go_on_with_the_last_wanted_when_the_database_is_away(
    engines: Engines,
) -> None:
    engines.wanted = [IDENTITY, V1]
    await engines.check()
    engines.is_database_away = True
    engines.fakes[0].restart()
    await engines.check()
    assert engines.pool.engines[0].state == "ready"
    assert set(engines.fakes[0].adapters) == {"identity", "t1-a--v1"}


@pytest.mark.usefixtures("registry")
async def test_an_engine_waits_for_a_database_that_was_never_there(
    engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    engines.is_database_away = True
    for _ in range(3):
        await engines.check()
    assert engines.pool.engines[0].state == "starting"
    assert "database" in (engines.pool.engines[0].reason or "")
    assert [record.message for record in caplog.records].count("wanted versions unknown") == 1
    engines.is_database_away = False
    engines.wanted = [IDENTITY]
    await engines.check()
    assert engines.pool.engines[0].state == "ready"


@pytest.fixture
async def hanging(engines: Engines) -> AsyncGenerator[list[str]]:
    """A registry that has read once what is wanted; its reads since hang. They are counted."""
    reads: list[str] = []

    async def wanted() -> list[Version]:
        reads.append("wanted")
        while len(reads) > 1:
            with suppress(asyncio.CancelledError):  # as drivers may do
                await leave.wait()
                break
        return [IDENTITY, V1]

    leave = asyncio.Event()
    registry = AdapterRegistry(
        engines.pool, wanted=wanted, read_timeout_s=0.01, clock=engines.clock
    )
    await registry.start()
    try:
        async with asyncio.timeout(20):
            await engines.check()
        yield reads
    finally:
        leave.set()


async def test_a_database_that_hangs_keeps_no_engine_away(
    engines: Engines, hanging: list[str]
) -> None:
    async with asyncio.timeout(20):
        engines.fakes[0].restart()
        engines.networks[0].is_cut = True
        await engines.check()
        assert [engine.state for engine in engines.pool.engines] == ["away", "ready"]
        engines.networks[0].is_cut = False
        await engines.check()
    assert [engine.state for engine in engines.pool.engines] == ["ready", "ready"]
    assert set(engines.fakes[0].adapters) == {"identity", "t1-a--v1"}
    assert len(hanging) == 2  # one that returned, and one that all wait for


async def test_a_database_that_hangs_makes_no_engine_look_silent(
    engines: Engines, hanging: list[str]
) -> None:
    await engines.pool.start()
    async with asyncio.timeout(20):
        for fake in engines.fakes:
            await fake.called("/health", len(fake.received("/health")) + 3)
    assert len(hanging) == 2
    assert all(engine.state == "ready" for engine in engines.pool.engines)


async def test_what_a_database_tells_late_is_taken(engines: Engines) -> None:
    told = asyncio.Event()

    async def wanted() -> list[Version]:
        await told.wait()
        return [IDENTITY]

    registry = AdapterRegistry(engines.pool, wanted=wanted, read_timeout_s=0.01)
    await registry.start()
    async with asyncio.timeout(20):
        await engines.check()
        assert not engines.pool.ready
        told.set()
        await engines.check()
    assert len(engines.pool.ready) == 2


@dataclass
class Files:
    """What a look at the versions' files finds."""

    damaged: set[str] = field(default_factory=set[str])
    looks: list[str] = field(default_factory=list[str])

    async def verify(self, version: VersionLike) -> None:
        self.looks.append(version.engine_name)
        if version.engine_name in self.damaged:
            raise AdapterDamaged(f"The files of {version.label} are damaged: torn")


@pytest.fixture
def files() -> Files:
    return Files(damaged={"t1-a--v1"})


@pytest.fixture
async def careful(engines: Engines, files: Files) -> AdapterRegistry:
    """A registry that looks at files first."""
    registry = AdapterRegistry(
        engines.pool, wanted=engines.read_wanted, clock=engines.clock, verify=files.verify
    )
    await registry.start()
    return registry


@pytest.mark.usefixtures("careful")
async def test_no_engine_is_asked_to_load_a_damaged_version(engines: Engines) -> None:
    engines.wanted = [IDENTITY, V1, V2]
    await engines.check()
    for engine, fake in zip(engines.pool.engines, engines.fakes, strict=True):
        assert engine.state == "ready"
        assert set(fake.adapters) == {"identity", "t1-a--v2"}


async def test_a_damaged_version_cannot_be_had_on_demand(
    engines: Engines, careful: AdapterRegistry
) -> None:
    await engines.check()
    with pytest.raises(EngineUnavailable):
        await careful.ensure(V1, engines.pool.engines[0])
    assert set(engines.fakes[0].adapters) == {"identity"}


async def test_a_damaged_version_is_refused_even_where_it_is_loaded(
    engines: Engines, careful: AdapterRegistry, files: Files
) -> None:
    engines.wanted = [IDENTITY, V2]
    await engines.check()
    files.damaged.add("t1-a--v2")
    with pytest.raises(AdapterDamaged, match="torn"):
        await careful.load_everywhere(V2)


async def test_files_are_looked_at_once_for_all_engines(
    engines: Engines, careful: AdapterRegistry, files: Files
) -> None:
    await engines.check()
    await careful.load_everywhere(V2)
    assert len(engines.fakes) > 1
    assert files.looks == ["t1-a--v2"]
