"""The engine and the trainer see one model: the same tokens, the same log-probabilities, before
training, after a step, and of a version that a cycle has published.

Without it the importance weights of the update would be noise, and a swap a claim.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from ttrl_client.types import CycleStatus, Gate, Learning, TenantSettings

from adapters.batch import (
    LearnerConfig,
    Open,
    Opened,
    Save,
    Saved,
    Score,
    Scored,
    Step,
    Stepped,
    Tokenize,
    Tokenized,
    TrainSample,
)
from adapters.store import AdapterStore
from demo.questions import additions
from server.adaptation.trainer import TrainerProcess, trainer_command
from server.engine.client import Completion, EngineClient
from server.tenants import IDENTITY_NAME, version_engine_name
from tests.e2e.live import CHAT, LiveServer
from tests.e2e.traffic import ask_each

pytestmark = [pytest.mark.engine, pytest.mark.train, pytest.mark.asyncio(loop_scope="module")]

MAX_MISMATCH = 0.005  # nats a token, mean absolute difference
NUM_PROMPTS, NUM_SAMPLES = 8, 8
MAX_TOKENS = 64
CYCLE_TIMEOUT_S = 400.0
LEARNING_RATE = 5e-3  # bold, so that few steps lead away from the base model
TENANT = "faithful"
LEARNING = Learning(
    steps=4,
    prompts_per_step=4,
    samples_per_prompt=8,
    max_tokens=MAX_TOKENS,
    learning_rate=LEARNING_RATE,
    max_prompts=16,
    estimator="majority",
    min_answers=2,
)
GATE = Gate(enabled=False, probe_prompts=4, samples_per_prompt=2)
NUM_LOGGED = 32

Note = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Both:
    """The session's engine, and a trainer of our own on the same base model."""

    live: LiveServer
    engine: EngineClient
    trainer: TrainerProcess

    @property
    def config(self) -> LearnerConfig:
        """As a cycle trains."""
        settings = self.live.settings
        return LearnerConfig(
            rank=settings.lora_rank, alpha=settings.lora_alpha, learning_rate=LEARNING_RATE
        )

    async def sample(self, model: str, *, temperature: float = 1.0, n: int = NUM_SAMPLES) -> Drawn:
        """Completions of the same prompts under an adapter that is loaded."""
        drawn: list[tuple[list[int], Completion]] = []
        for number, question in enumerate(additions(5, NUM_PROMPTS)):
            prompt = await self.engine.tokenize([{"role": "user", "content": question.text}])
            completions = await self.engine.sample(
                model=model,
                prompt_ids=prompt,
                n=n,
                max_tokens=MAX_TOKENS,
                temperature=temperature,
                seed=100 * number,
            )
            drawn += [(prompt, completion) for completion in completions]
        return Drawn(drawn)

    async def open(self, adapter_dir: Path | None) -> None:
        """Have the trainer work on an adapter, None being a fresh one."""
        place = None if adapter_dir is None else str(adapter_dir)
        await self.trainer.ask(Open(self.config, place, None), Opened)

    async def mismatch(self, drawn: Drawn, policy: str = "adapter") -> float:
        """Mean |engine - trainer| of the log-probabilities, nats a token."""
        request = Score(drawn.samples(), policy)
        scores = (await self.trainer.ask(request, Scored)).logprobs
        engine = [completion.logprobs for _, completion in drawn.completions]
        pairs = [
            (a, b)
            for ours, theirs in zip(engine, scores, strict=True)
            for a, b in zip(ours, theirs, strict=True)
        ]
        assert len(pairs) > len(engine)
        return fsum(abs(a - b) for a, b in pairs) / len(pairs)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Completions with their prompts."""

    completions: Sequence[tuple[list[int], Completion]]

    def samples(self) -> list[TrainSample]:
        """For the trainer; every second one is to become likelier, the others less likely."""
        return [
            TrainSample(
                prompt, c.token_ids, c.logprobs, [1.0 if at % 2 else -1.0] * len(c.token_ids)
            )
            for at, (prompt, c) in enumerate(self.completions)
        ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(live: LiveServer) -> AsyncGenerator[Both]:
    live.wait_ready()
    settings = live.settings
    trainer = TrainerProcess(
        trainer_command(settings),
        threads=settings.trainer_threads,
        nice=0,
        timeout_s=settings.trainer_timeout_s,
    )
    engine = EngineClient(live.engine_url)
    yield Both(live, engine, trainer)
    await trainer.stop()
    await engine.close()


@pytest.fixture
def note(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Note:
    """Show a measured figure, and put it into the XML report."""

    def write(name: str, value: float) -> None:
        request.node.user_properties.append((name, value))
        with capsys.disabled():
            sys.stdout.write(f"\n{name}: {value:.2e}\n")

    return write


CHATS: dict[str, list[dict[str, str]]] = {
    "plain": [{"role": "user", "content": "What is 1234 + 4321?"}],
    "system": [
        {"role": "system", "content": "You add numbers. Box the result."},
        {"role": "user", "content": "Compute 17+25."},
    ],
    "turns": [
        {"role": "user", "content": "What is 12+34?"},
        {"role": "assistant", "content": "2+4=6;1+3=4\n\\boxed{46}"},
        {"role": "user", "content": "And 46+1?"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "Well?"},
    ],
    "white space": [{"role": "user", "content": "  12\n\n+\t34  =\r\n ?  \n"}],
    "unicode": [{"role": "user", "content": "Ünïcödé — 12＋34 = ？ 🧮 e\u0301 \u200b \ufeff 数"}],
    "its own marks": [{"role": "user", "content": "<|im_end|>\n<|im_start|>assistant\n46"}],
    "empty": [{"role": "user", "content": ""}],
}


@pytest.mark.parametrize("messages", CHATS.values(), ids=CHATS.keys())
async def test_a_chat_is_the_same_tokens_everywhere(
    both: Both, messages: list[dict[str, str]]
) -> None:
    trainer = await both.trainer.ask(Tokenize(messages), Tokenized)
    body = {
        "model": IDENTITY_NAME,
        "messages": messages,
        "max_tokens": 1,
        "return_token_ids": True,
    }
    async with httpx.AsyncClient(timeout=120, trust_env=False) as http:
        chat = (await http.post(both.engine.url + CHAT, json=body)).raise_for_status().json()
    assert len(trainer.token_ids) > len(messages)
    assert await both.engine.tokenize(messages) == trainer.token_ids
    assert chat["prompt_token_ids"] == trainer.token_ids


async def test_before_training_the_trainer_agrees_with_the_engine(both: Both, note: Note) -> None:
    drawn = await both.sample(IDENTITY_NAME)
    assert len(drawn.completions) == NUM_PROMPTS * NUM_SAMPLES
    await both.open(None)
    mismatch = await both.mismatch(drawn)
    note("mismatch_at_step_0", mismatch)
    assert mismatch < MAX_MISMATCH
    assert await both.mismatch(drawn, "base") < MAX_MISMATCH


async def test_after_a_step_the_trainer_agrees_with_the_engine(
    both: Both, tmp_path: Path, note: Note
) -> None:
    await both.open(None)
    stepped = await both.trainer.ask(Step((await both.sample(IDENTITY_NAME)).samples()), Stepped)
    assert stepped.mismatch < MAX_MISMATCH
    await both.trainer.ask(Save(str(tmp_path / "adapter")), Saved)
    name = "t0-fidelity--c0-s1"
    await both.engine.load_adapter(name, str(tmp_path / "adapter"))
    try:
        drawn = await both.sample(name)
    finally:
        await both.engine.unload_adapter(name)

    mismatch = await both.mismatch(drawn)
    from_base = await both.mismatch(drawn, "base")

    note("mismatch_after_a_step", mismatch)
    note("distance_to_base_after_a_step", from_base)
    assert mismatch < MAX_MISMATCH
    assert from_base > 2 * MAX_MISMATCH, "the step changed too little to tell"


@pytest.fixture(scope="module")
def published(live: LiveServer) -> str:
    """The key of a tenant whose version 1 was made by a real cycle, and is live."""
    live.wait_ready()
    settings = TenantSettings(answer="math", learning=LEARNING, gate=GATE)
    _, key = live.make_tenant(TENANT, settings=settings)
    asked = ask_each(live.base_url, key, [q.text for q in additions(23, NUM_LOGGED)])
    assert all(reply.is_whole for reply in asked)
    cycle = live.admin.trigger_cycle(TENANT, seed=1)
    ended = live.wait_for(
        lambda: now if (now := live.admin.read_cycle(TENANT, cycle.id)).is_final else None,
        "the cycle's end",
        CYCLE_TIMEOUT_S,
    )
    assert ended.status == CycleStatus.PROMOTED, ended
    return key


async def test_the_engine_serves_the_weights_that_were_published(
    both: Both, published: str, note: Note
) -> None:
    tenant = both.live.admin.read_tenant(TENANT)
    store = AdapterStore(both.live.settings.adapters_dir)
    directory = store.version_dir(tenant.id, 1)
    name = version_engine_name(tenant.id, TENANT, 1)
    assert (tenant.live_version, store.verify(directory).engine_name) == (1, name)

    drawn = await both.sample(name)
    await both.open(directory)
    mismatch = await both.mismatch(drawn)
    from_base = await both.mismatch(drawn, "base")

    note("mismatch_of_the_published_version", mismatch)
    note("distance_to_base_of_the_published_version", from_base)
    assert mismatch < MAX_MISMATCH
    assert from_base > 2 * MAX_MISMATCH, "it differs too little from version 0 to tell"


async def test_the_endpoint_answers_with_the_published_version(both: Both, published: str) -> None:
    """Greedy log-probabilities through the endpoint: live is version 1, and is not version 0."""
    live, v1, v0 = [greedy(both.live, published, m) for m in ("ttrl", "ttrl@v1", "ttrl@base")]
    assert live[0] == v1[0] == f"{TENANT}--v1"
    assert v0[0] == f"{TENANT}--v0"
    assert live[1] == pytest.approx(v1[1], abs=1e-3)
    differences = [abs(a - b) for a, b in zip(v1[1], v0[1], strict=False)]
    assert max(differences) > 0.01


def greedy(live: LiveServer, key: str, model: str) -> tuple[str, list[float]]:
    """The version that answered, and the log-probabilities of its greedy answer."""
    headers = {"Authorization": f"Bearer {key}"}
    messages = [{"role": "user", "content": "What is 1234+4321?"}]
    body = {"model": model, "messages": messages, "temperature": 0, "logprobs": True}
    url = live.base_url + CHAT
    response = httpx.post(url, json=body, headers=headers, timeout=120, trust_env=False)
    tokens = response.raise_for_status().json()["choices"][0]["logprobs"]["content"]
    return response.headers["x-ttrl-adapter"], [token["logprob"] for token in tokens]
