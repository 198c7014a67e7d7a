"""The engine client against the fake; tests/e2e/test_engine.py runs it against real vLLM too."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from server.engine.client import EngineClient
from server.errors import BadRequest, EngineFailed, EngineUnavailable, UnknownModel
from tests.fakes.serving import serve
from tests.fakes.vllm import EOS, FakeVLLM, Fault

COMPLETIONS = "/v1/completions"


@pytest.fixture
def fake() -> FakeVLLM:
    return FakeVLLM(check_files=False, default_answer=["4", "5"])


@pytest.fixture
async def client(fake: FakeVLLM) -> AsyncGenerator[EngineClient]:
    client = EngineClient("http://engine", transport=httpx.ASGITransport(app=fake))
    yield client
    await client.close()


async def sample(client: EngineClient, *, model: str = "base", n: int = 2) -> list[str]:
    samples = await client.sample(
        model=model, prompt_ids=[104, 105], n=n, max_tokens=8, temperature=1.0, seed=0
    )
    return [completion.text for completion in samples]


async def test_samples_carry_ids_and_aligned_logprobs(client: EngineClient) -> None:
    samples = await client.sample(
        model="base", prompt_ids=[104], n=2, max_tokens=8, temperature=0.7, seed=0
    )
    assert [completion.token_ids for completion in samples] == [[52, EOS], [53, EOS]]
    assert all(len(c.token_ids) == len(c.logprobs) for c in samples)
    assert {completion.finish_reason for completion in samples} == {"stop"}


async def test_sampling_asks_for_the_plain_distribution(
    fake: FakeVLLM, client: EngineClient
) -> None:
    await client.sample(
        model="base",
        prompt_ids=[1],
        n=1,
        max_tokens=3,
        temperature=0.5,
        seed=7,
        priority=3,
        cache_salt="tenant-1",
    )
    body = fake.received(COMPLETIONS)[0].body
    neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    given = {"temperature": 0.5, "seed": 7, "priority": 3, "cache_salt": "tenant-1", "n": 1}
    assert (neutral | given).items() <= body.items()
    assert (body["logprobs"], body["return_token_ids"]) == (0, True)


async def test_an_unknown_adapter_is_an_unknown_model(client: EngineClient) -> None:
    with pytest.raises(UnknownModel):
        await sample(client, model="t9-nobody--v1")


async def test_a_prompt_that_is_too_long_is_a_bad_request(client: EngineClient) -> None:
    with pytest.raises(BadRequest, match="maximum context length"):
        await client.sample(
            model="base", prompt_ids=[1] * 5000, n=1, max_tokens=1, temperature=1.0, seed=None
        )


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_an_ill_engine_is_unavailable(
    fake: FakeVLLM, client: EngineClient, status: int
) -> None:
    fake.script(COMPLETIONS, Fault(status=status))
    with pytest.raises(EngineUnavailable):
        await sample(client)


@pytest.mark.parametrize("garbage", [b"", b"<html>", b'{"choices":[]}', b'{"choices":[{}]}'])
async def test_an_answer_without_sense_is_a_failure(
    fake: FakeVLLM, client: EngineClient, garbage: bytes
) -> None:
    fake.script(COMPLETIONS, Fault(garbage=garbage))
    with pytest.raises(EngineFailed):
        await sample(client)


async def test_tokens_without_their_logprobs_are_a_failure(
    fake: FakeVLLM, client: EngineClient
) -> None:
    choice = '{"index":0,"text":"","token_ids":[1,2],"logprobs":{"token_logprobs":[-1.0]}}'
    fake.script(COMPLETIONS, Fault(garbage=b'{"choices":[%s]}' % choice.encode()))
    with pytest.raises(EngineFailed, match="2 tokens"):
        await sample(client, n=1)


async def test_a_connection_that_breaks_is_unavailable(fake: FakeVLLM) -> None:
    fake.script(COMPLETIONS, Fault(drop_after=0))
    async with serve(fake) as url:
        client = EngineClient(url)
        with pytest.raises(EngineUnavailable):
            await sample(client)
        await client.close()


async def test_an_engine_that_is_not_there() -> None:
    async with serve(FakeVLLM()) as url:
        pass
    client = EngineClient(url)
    assert not await client.healthy()
    with pytest.raises(EngineUnavailable):
        await client.adapters()
    await client.close()


async def test_health_follows_the_engine(fake: FakeVLLM, client: EngineClient) -> None:
    assert await client.healthy()
    fake.healthy = False
    assert not await client.healthy()


async def test_adapters_are_loaded_listed_and_unloaded(client: EngineClient) -> None:
    assert await client.load_adapter("t1-a--v1", "/adapters/1") >= 0
    assert await client.adapters() == {"t1-a--v1": "/adapters/1"}
    await client.unload_adapter("t1-a--v1")
    await client.unload_adapter("t1-a--v1")
    assert await client.adapters() == {}


async def test_loading_twice_is_fine_for_the_same_files_only(client: EngineClient) -> None:
    await client.load_adapter("t1-a--v1", "/adapters/1")
    await client.load_adapter("t1-a--v1", "/adapters/1")
    with pytest.raises(EngineFailed, match="already"):
        await client.load_adapter("t1-a--v1", "/adapters/2")


async def test_load_in_place_is_never_asked_for(fake: FakeVLLM, client: EngineClient) -> None:
    await client.load_adapter("t1-a--v1", "/adapters/1")
    assert fake.received("/v1/load_lora_adapter")[0].body.keys() == {"lora_name", "lora_path"}


async def test_relative_paths_are_not_sent(fake: FakeVLLM, client: EngineClient) -> None:
    with pytest.raises(EngineFailed, match="absolute"):
        await client.load_adapter("t1-a--v1", "org/adapter")
    assert fake.requests == []


async def test_files_that_are_missing_are_refused(tmp_path: Path) -> None:
    transport = httpx.ASGITransport(app=FakeVLLM())
    client = EngineClient("http://engine", transport=transport)
    with pytest.raises(EngineFailed, match="No adapter found"):
        await client.load_adapter("t1-a--v1", str(tmp_path))
    await client.close()


async def test_tokenize_renders_the_chat(client: EngineClient) -> None:
    ids = await client.tokenize([{"role": "user", "content": "hi"}])
    assert "".join(map(chr, ids)).endswith("hi<|im_end|>\n<|im_start|>assistant\n")
