"""The contract with vLLM: the same assertions against the fake and against the real one.

Whatever a test here asserts may be relied on by the rest of the server, and the fake keeps to it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.engine.client import BACKGROUND_PRIORITY, EngineClient
from server.errors import EngineFailed, UnknownModel
from tests.fakes.serving import serve_in_thread
from tests.fakes.vllm import FakeVLLM

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
MESSAGES = [{"role": "user", "content": "What is 1234 + 4321?"}]
FAKE_ANSWER = "4+1=5;3+2=5\n\\boxed{5555}"  # in the manner of the bundled model
numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Target:
    """An engine under test, and an adapter that it can load."""

    url: str
    adapter: Path


@pytest.fixture
def fake_target(tmp_path: Path) -> Generator[Target]:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    fake = FakeVLLM(max_model_len=1024, default_answer=FAKE_ANSWER)
    with serve_in_thread(fake) as url:
        yield Target(url, adapter)


@pytest.fixture(params=["fake", pytest.param("vllm", marks=pytest.mark.engine)])
def target(request: pytest.FixtureRequest) -> Target:
    """The fake, and the real one."""
    if request.param == "fake":
        return request.getfixturevalue("fake_target")
    adapter = request.getfixturevalue("identity_path")
    return Target(request.getfixturevalue("engine_url"), adapter)


@pytest.fixture
async def http(target: Target) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=target.url, timeout=120, trust_env=False) as http:
        yield http


@pytest.fixture
async def client(target: Target) -> AsyncGenerator[EngineClient]:
    client = EngineClient(target.url, timeout_s=120)
    yield client
    await client.close()


@pytest.fixture
async def adapter(target: Target, client: EngineClient) -> AsyncGenerator[str]:
    """The name of a loaded adapter that changes nothing."""
    name = f"t1-contract--v{next(numbers)}"
    await client.load_adapter(name, str(target.adapter))
    yield name
    await client.unload_adapter(name)


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream; the `[DONE]` at its end is checked and dropped."""
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = response.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


async def test_an_adapter_is_loaded_listed_and_unloaded(
    target: Target, http: httpx.AsyncClient
) -> None:
    name = f"t1-contract--v{next(numbers)}"
    body = {"lora_name": name, "lora_path": str(target.adapter)}
    response = await http.post(LOAD, json=body)
    assert response.text == f"Success: LoRA adapter '{name}' added successfully."
    cards = {card["id"]: card for card in (await http.get("/v1/models")).json()["data"]}
    assert (cards[name]["root"], cards[name]["parent"]) == (str(target.adapter), "base")
    assert (cards["base"]["parent"], cards["base"]["max_model_len"]) == (None, 1024)
    response = await http.post(UNLOAD, json={"lora_name": name})
    assert response.text == f"Success: LoRA adapter '{name}' removed successfully."
    response = await http.post(CHAT, json={"model": name, "messages": MESSAGES})
    assert response.status_code == 404


CHAT_BODY: dict[str, Any] = {"model": "base", "messages": MESSAGES}
TEXT_BODY: dict[str, Any] = {"model": "base", "prompt": [1]}
MISSING_DIR = {"lora_name": "x", "lora_path": "/nowhere/at/all"}


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "param"),
    [
        (LOAD, {"lora_name": "x"}, 400, "Bad Request", "body.lora_path"),
        (LOAD, {"lora_name": "base", "lora_path": "/x"}, 400, "InvalidUserInput", None),
        (LOAD, MISSING_DIR, 404, "NotFoundError", None),
        (UNLOAD, {}, 400, "Bad Request", "body.lora_name"),
        (UNLOAD, {"lora_name": "nobody"}, 404, "NotFoundError", None),
        (CHAT, CHAT_BODY | {"model": "nobody"}, 404, "NotFoundError", "model"),
        (CHAT, CHAT_BODY | {"model": "no", "stream": True}, 404, "NotFoundError", "model"),
        (COMPLETIONS, TEXT_BODY | {"model": "nobody"}, 404, "NotFoundError", "model"),
        ("/tokenize", CHAT_BODY | {"model": "nobody"}, 404, "NotFoundError", "model"),
        (CHAT, {"model": "base"}, 400, "Bad Request", "body.messages"),
        (CHAT, CHAT_BODY | {"max_tokens": 0}, 400, "BadRequestError", "max_tokens"),
        (CHAT, CHAT_BODY | {"max_completion_tokens": 0}, 400, "BadRequestError", "max_tokens"),
        (CHAT, CHAT_BODY | {"max_tokens": -1}, 400, "BadRequestError", "max_tokens"),
        (CHAT, CHAT_BODY | {"n": 0}, 400, "BadRequestError", None),
        (CHAT, CHAT_BODY | {"n": 2, "temperature": 0}, 400, "BadRequestError", None),
        (
            CHAT,
            CHAT_BODY | {"stream_options": {"include_usage": True}},
            400,
            "BadRequestError",
            "stream_options",
        ),
        (COMPLETIONS, {"model": "base"}, 400, "BadRequestError", "prompt"),
        (COMPLETIONS, TEXT_BODY | {"prompt": [5] * 1100}, 400, "BadRequestError", "input_tokens"),
    ],
)
async def test_errors_have_one_shape(
    http: httpx.AsyncClient,
    path: str,
    body: dict[str, Any],
    status: int,
    kind: str,
    param: str | None,
) -> None:
    response = await http.post(path, json=body)
    error = response.json()["error"]
    assert response.status_code == status
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == (kind, param, status)
    assert error["message"]


async def test_a_body_that_is_no_json_is_a_bad_request(http: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    response = await http.post(CHAT, content=b'{"model": ', headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "Bad Request"


async def test_a_name_cannot_be_loaded_twice(
    target: Target, http: httpx.AsyncClient, adapter: str
) -> None:
    body = {"lora_name": adapter, "lora_path": str(target.adapter)}
    response = await http.post(LOAD, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "InvalidUserInput"
    assert "already been loaded" in response.json()["error"]["message"]


async def test_the_client_takes_a_loaded_adapter_for_granted(
    target: Target, client: EngineClient, adapter: str, tmp_path: Path
) -> None:
    await client.load_adapter(adapter, str(target.adapter))
    with pytest.raises(EngineFailed):
        await client.load_adapter(adapter, str(tmp_path))
    assert (await client.adapters())[adapter] == str(target.adapter)


async def test_samples_are_aligned_with_their_logprobs(client: EngineClient, adapter: str) -> None:
    prompt = await client.tokenize(MESSAGES)
    samples = await client.sample(
        model=adapter,
        prompt_ids=prompt,
        n=4,
        max_tokens=200,
        temperature=1.0,
        seed=11,
        cache_salt="tenant-1",
    )
    assert len(samples) == 4
    assert all(len(sample.token_ids) == len(sample.logprobs) > 0 for sample in samples)
    assert all(logprob <= 0 for sample in samples for logprob in sample.logprobs)
    # The stop token is among the tokens: all that stopped end with the same one.
    assert len({s.token_ids[-1] for s in samples if s.finish_reason == "stop"}) == 1


async def test_a_sample_that_was_cut_says_so(client: EngineClient, adapter: str) -> None:
    prompt = await client.tokenize(MESSAGES)
    samples = await client.sample(
        model=adapter, prompt_ids=prompt, n=1, max_tokens=3, temperature=1.0, seed=None
    )
    assert (samples[0].finish_reason, len(samples[0].token_ids)) == ("length", 3)


async def test_sampling_from_an_adapter_that_is_not_there(client: EngineClient) -> None:
    with pytest.raises(UnknownModel):
        await client.sample(
            model="t1-contract--v0", prompt_ids=[1], n=1, max_tokens=1, temperature=1.0, seed=1
        )


async def test_the_chat_route_and_tokenize_agree_on_the_prompt(
    http: httpx.AsyncClient, client: EngineClient, adapter: str
) -> None:
    body = {"model": adapter, "messages": MESSAGES, "max_tokens": 1, "return_token_ids": True}
    answer = (await http.post(CHAT, json=body)).json()
    assert answer["prompt_token_ids"] == await client.tokenize(MESSAGES)


async def test_a_chat_is_answered_under_the_adapters_name(
    http: httpx.AsyncClient, adapter: str
) -> None:
    body = {"model": adapter, "messages": MESSAGES, "n": 2, "logprobs": True, "max_tokens": 60}
    answer = (await http.post(CHAT, json=body)).json()
    assert (answer["model"], answer["object"]) == (adapter, "chat.completion")
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    tokens = [choice["logprobs"]["content"] for choice in answer["choices"]]
    assert sum(map(len, tokens)) == answer["usage"]["completion_tokens"]


async def test_a_stream_tells_role_text_ids_finish_and_usage(
    http: httpx.AsyncClient, adapter: str
) -> None:
    body = {
        "model": adapter,
        "messages": MESSAGES,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "max_tokens": 60,
        "temperature": 0,
    }
    chunks = events(await http.post(CHAT, json=body))
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[0]["prompt_token_ids"]
    deltas = [chunk["choices"][0] for chunk in chunks[1:-1]]
    assert [delta["finish_reason"] for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    num_tokens = sum(len(delta["token_ids"]) for delta in deltas)
    assert chunks[-1]["usage"]["completion_tokens"] == num_tokens
    text = "".join(delta["delta"].get("content", "") for delta in deltas)
    whole = (
        await http.post(CHAT, json={k: v for k, v in body.items() if k[:6] != "stream"})
    ).json()
    assert text == whole["choices"][0]["message"]["content"]


async def test_a_stream_without_usage_has_no_usage(http: httpx.AsyncClient, adapter: str) -> None:
    body = {"model": adapter, "prompt": [40, 41], "stream": True, "max_tokens": 3}
    chunks = events(await http.post(COMPLETIONS, json=body))
    assert all(chunk["choices"] and "usage" not in chunk for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


async def test_stop_strings_leave_the_text_but_not_the_tokens(
    http: httpx.AsyncClient, client: EngineClient, adapter: str
) -> None:
    body = {
        "model": adapter,
        "prompt": await client.tokenize(MESSAGES),
        "stop": ["="],
        "max_tokens": 60,
        "temperature": 0,
        "return_token_ids": True,
        "logprobs": 0,
    }
    choice = (await http.post(COMPLETIONS, json=body)).json()["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "=")
    assert "=" not in choice["text"]
    assert choice["logprobs"]["tokens"][-1] == "="
    assert len(choice["token_ids"]) == len(choice["logprobs"]["token_logprobs"])


def shape(value: Any) -> Any:
    """A JSON value's structure: keys in order, kinds of values, the distinct shapes of a list."""
    if isinstance(value, dict):
        if "top_logprobs" in value and "tokens" in value:  # its keys are the tokens
            value = value | {"top_logprobs": []}
        return [(key, shape(item)) for key, item in value.items()]
    if isinstance(value, list):
        shapes = [shape(item) for item in value]
        return [s for at, s in enumerate(shapes) if s not in shapes[:at]]
    return "number" if isinstance(value, int | float) else type(value).__name__


DETAILS: dict[str, Any] = {"max_tokens": 4, "return_token_ids": True, "temperature": 0}
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.engine
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, CHAT_BODY | {"max_tokens": 4}),
        (CHAT, CHAT_BODY | DETAILS | {"logprobs": True}),
        (CHAT, CHAT_BODY | {"max_tokens": 4, "temperature": 0} | STREAM),
        (CHAT, CHAT_BODY | DETAILS | STREAM | {"logprobs": True}),
        (CHAT, CHAT_BODY | {"stream": True, "temperature": 0}),
        (COMPLETIONS, TEXT_BODY | {"max_tokens": 4}),
        (COMPLETIONS, TEXT_BODY | DETAILS | {"logprobs": 0}),
        (COMPLETIONS, TEXT_BODY | {"max_tokens": 4} | STREAM),
        (COMPLETIONS, TEXT_BODY | DETAILS | STREAM | {"logprobs": 0}),
        ("/tokenize", CHAT_BODY),
    ],
)
def test_the_fakes_answers_have_the_shape_of_real_ones(
    engine_url: str, fake_target: Target, path: str, body: dict[str, Any]
) -> None:
    with httpx.Client(timeout=120, trust_env=False) as http:
        real, fake = (http.post(url + path, json=body) for url in (engine_url, fake_target.url))
    if "stream" in body:
        assert shape(events(fake)) == shape(events(real))
    else:
        assert shape(fake.json()) == shape(real.json())


@pytest.mark.engine
async def test_the_identity_adapter_changes_nothing(engine_url: str, identity_path: Path) -> None:
    client = EngineClient(engine_url)
    await client.load_adapter("identity", str(identity_path))
    prompt = await client.tokenize(MESSAGES)
    base, identity = [
        (
            await client.sample(
                model=model, prompt_ids=prompt, n=1, max_tokens=60, temperature=0, seed=None
            )
        )[0]
        for model in ("base", "identity")
    ]
    await client.close()
    assert identity.token_ids == base.token_ids
    assert identity.logprobs == pytest.approx(base.logprobs, abs=1e-4)


@pytest.mark.engine
async def test_a_torn_adapter_is_refused_and_the_engine_lives(
    engine_url: str, identity_path: Path, tmp_path: Path
) -> None:
    shutil.copytree(identity_path, tmp_path / "torn")
    weights = tmp_path / "torn" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    client = EngineClient(engine_url)
    with pytest.raises(EngineFailed):
        await client.load_adapter("t1-torn--v1", str(tmp_path / "torn"))
    assert await client.healthy()
    assert "t1-torn--v1" not in await client.adapters()
    await client.close()


@pytest.mark.engine
async def test_a_user_is_not_held_up_by_samples_of_the_background(
    engine_url: str, identity_path: Path
) -> None:
    """Of the tokens that background sequences would get in a user's steps, they get a small part:
    counted, not timed.
    """
    length = {"max_tokens": 160, "ignore_eos": True, "temperature": 1.0}
    background = TEXT_BODY | length | {"n": 8, "stream": True, "priority": BACKGROUND_PRIORITY}
    user = TEXT_BODY | length | {"max_tokens": 60, "stream": True, "temperature": 0}
    came: list[str] = []
    is_sampling = asyncio.Event()

    async def follow(http: httpx.AsyncClient, who: str, body: dict[str, Any]) -> None:
        async with http.stream("POST", COMPLETIONS, json=body) as response:
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    came.extend(who for _ in json.loads(line.removeprefix("data: "))["choices"])
                    if len(came) > 80:
                        is_sampling.set()

    async with (
        httpx.AsyncClient(base_url=engine_url, timeout=120, trust_env=False) as http,
        asyncio.timeout(100),
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(follow(http, "background", background))
        await is_sampling.wait()
        tasks.create_task(follow(http, "user", user))
    first, last = came.index("user"), len(came) - 1 - came[::-1].index("user")
    between = came[first:last].count("background")
    assert came.count("user") >= 60
    assert between < 0.5 * 8 * 60, between  # in shared steps only: 480
    assert came.count("background") >= 8 * 160  # and it went on afterwards
