"""Samples come from engines that answer, whatever the others do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from server.adaptation.sampler import Draw, Policy, Sampler
from server.engine.pool import STALL_S
from server.engine.probe import ModelProbe
from server.engine.registry import AdapterRegistry
from server.errors import EngineSilent
from tests.fakes.vllm import Fault
from tests.server.engine.conftest import Engines, two_engines

COMPLETIONS = "/v1/completions"
POLICY = Policy("identity", "/adapters/identity")
DRAW = Draw(n=2, max_tokens=8, temperature=1.0, seed=7, cache_salt="test")


@pytest.fixture
async def engines() -> AsyncGenerator[Engines]:
    """Two that are ready and have the adapter."""
    async with two_engines() as engines:
        registry = AdapterRegistry(
            engines.pool, wanted=engines.read_wanted, probe=ModelProbe(timeout_s=1)
        )
        await registry.start()
        await engines.check()
        yield engines


@pytest.fixture
def met(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets the first engine's answers time out; the requests that met it."""
    met: list[str] = []

    async def silent(**_: object) -> None:
        met.append("sample")
        raise EngineSilent("The engine did not answer in time.")

    monkeypatch.setattr(engines.pool.engines[0].client, "sample", silent)
    return met


async def test_what_one_engine_leaves_unanswered_another_one_is_asked(
    engines: Engines, met: list[str]
) -> None:
    sampler = Sampler(engines.pool, patience_s=0)  # less than an answer takes
    async with asyncio.timeout(20):
        for _ in range(3):
            assert len(await sampler.sample(POLICY, [1, 2, 3], DRAW)) == 2
    assert met


async def test_one_that_was_silent_is_asked_again_where_there_is_no_other(
    engines: Engines, met: list[str]
) -> None:
    engines.pool.set_state(engines.pool.engines[1], "away")
    with pytest.raises(EngineSilent):
        async with asyncio.timeout(20):
            await Sampler(engines.pool, patience_s=0).sample(POLICY, [1, 2, 3], DRAW)
    assert len(met) == 2


async def test_samples_of_an_engine_that_is_put_aside_are_drawn_elsewhere(
    engines: Engines,
) -> None:
    wedged, fake = engines.pool.engines[0], engines.fakes[0]
    fake.script(COMPLETIONS, *[Fault(hold=asyncio.Event()) for _ in range(2)])
    asked = fake.num_generations
    sampler = Sampler(engines.pool, patience_s=20)
    async with asyncio.timeout(20):
        waiting = [asyncio.create_task(sampler.sample(POLICY, [1, 2, 3], DRAW)) for _ in range(2)]
        await fake.arrived(asked + 1)
        wedged.heard_at -= 2 * STALL_S
        await engines.pool.check(wedged)
        assert engines.pool.aside == ["engine 1: It does not generate any more."]
        assert [len(samples) for samples in await asyncio.gather(*waiting)] == [2, 2]


async def test_an_engine_is_asked_for_the_tokens_of_a_chat_once(engines: Engines) -> None:
    def asked() -> int:
        return sum(len(fake.received("/tokenize")) for fake in engines.fakes)

    sampler, before = Sampler(engines.pool, patience_s=0), asked()
    chats = [[{"role": "user", "content": text}] for text in ("hi", "ho", "hi", "hi")]
    tokens = [await sampler.tokenize(chat) for chat in chats]
    assert tokens[0] == tokens[2] == tokens[3] != tokens[1]
    assert asked() - before == 2


async def test_after_a_cycle_the_engine_is_asked_again(engines: Engines) -> None:
    sampler, chat = Sampler(engines.pool, patience_s=0), [{"role": "user", "content": "again"}]
    before = sum(len(fake.received("/tokenize")) for fake in engines.fakes)
    await sampler.tokenize(chat)
    sampler.forget_chats()
    await sampler.tokenize(chat)
    assert sum(len(fake.received("/tokenize")) for fake in engines.fakes) - before == 2
