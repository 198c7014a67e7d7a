"""The trainer process: asked, dying, hanging, restarted; with a stub, and with the real one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adapters.batch import Average, Close, LearnerConfig, Tokenize, Tokenized, TrainSample
from server.adaptation.learner import Checkpoint, Learner
from server.adaptation.sampler import Policy
from server.adaptation.trainer import TrainerProcess, trainer_command
from server.config import SECRETS, Settings
from server.errors import TrainerFailed
from tests.server.engine.processes import environment_of, is_alive, until

from .fake_trainer import FakeTrainer, write_adapter

ROOT = Path(__file__).resolve().parents[3]
STUB = [sys.executable, "-m", "tests.server.adaptation.stub_trainer"]


def say(what: str) -> Tokenize:
    return Tokenize([{"role": "user", "content": what}])


@asynccontextmanager
async def trainer(
    command: list[str] = STUB, *, timeout_s: float = 60
) -> AsyncGenerator[TrainerProcess]:
    process = TrainerProcess(command, threads=1, nice=5, timeout_s=timeout_s)
    try:
        yield process
    finally:
        await process.stop()


async def test_it_is_started_when_it_is_asked_and_stays() -> None:
    async with trainer() as process:
        assert process.pid is None
        assert (await process.ask(say("hello"), Tokenized)).token_ids == [1, 2, 3]
        pid = process.pid
        await process.ask(say("again"), Tokenized)
        assert process.pid == pid
        assert os.getpriority(os.PRIO_PROCESS, pid or 0) == 5


async def test_it_never_sees_the_servers_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, "TTRL_LOG_LEVEL"):
        monkeypatch.setenv(name, "x")
    async with trainer() as process:
        await process.ask(say("hello"), Tokenized)
        seen = environment_of(process.pid or 0)
    assert not seen & set(SECRETS)
    assert "TTRL_LOG_LEVEL" in seen


async def test_requests_take_turns() -> None:
    async with trainer() as process:
        replies = await asyncio.gather(*(process.ask(say("x"), Tokenized) for _ in range(8)))
    assert [reply.token_ids for reply in replies] == [[1, 2, 3]] * 8


async def test_replies_may_be_long() -> None:
    async with trainer() as process:
        assert len((await process.ask(say("long"), Tokenized)).token_ids) == 200_000


async def test_its_last_words_are_in_the_error_and_it_is_restarted() -> None:
    async with trainer() as process:
        await process.ask(say("hello"), Tokenized)
        first = process.pid
        with pytest.raises(TrainerFailed, match=r"status 3: Traceback: out of memory"):
            await process.ask(say("die"), Tokenized)
        await process.ask(say("hello"), Tokenized)
        assert process.pid not in (None, first)


async def test_a_killed_one_is_restarted() -> None:
    async with trainer() as process:
        await process.ask(say("hello"), Tokenized)
        os.kill(process.pid or 0, signal.SIGKILL)
        with pytest.raises(TrainerFailed, match="status -9"):
            await process.ask(say("hello"), Tokenized)
        await process.ask(say("hello"), Tokenized)


async def test_a_refusal_leaves_it_running() -> None:
    async with trainer() as process:
        with pytest.raises(TrainerFailed, match="Tokenize: ValueError: not like this"):
            await process.ask(say("refuse"), Tokenized)
        assert process.pid is not None


@pytest.mark.parametrize("what", ["babble", "mistake"])
async def test_replies_that_make_no_sense_are_errors(what: str) -> None:
    async with trainer() as process:
        with pytest.raises(TrainerFailed):
            await process.ask(say(what), Tokenized)
        assert (await process.ask(say("hello"), Tokenized)).token_ids == [1, 2, 3]


async def test_one_that_hangs_is_killed() -> None:
    async with trainer() as process:
        await process.ask(say("hello"), Tokenized)
        pid = process.pid or 0
        process._timeout_s = 0.2
        with pytest.raises(TrainerFailed, match="no reply to Tokenize"):
            await process.ask(say("hang"), Tokenized)
        assert not is_alive(pid)


async def test_a_cancelled_request_leaves_no_late_reply() -> None:
    async with trainer() as process:
        await process.ask(say("hello"), Tokenized)
        asking = asyncio.create_task(process.ask(say("hang"), Tokenized))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (await process.ask(say("hello"), Tokenized)).token_ids == [1, 2, 3]


async def test_one_that_cannot_start_says_why() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    async with trainer(command) as process:
        with pytest.raises(TrainerFailed, match="no such model"):
            await process.ask(say("hello"), Tokenized)


async def test_stopping_ends_it() -> None:
    async with trainer() as process:
        await process.ask(say("hello"), Tokenized)
        pid = process.pid or 0
    assert not is_alive(pid)


OWNER = """
import asyncio, sys
from adapters.batch import Tokenize, Tokenized
from server.adaptation.trainer import TrainerProcess, trainer_command
from server.config import SECRETS, Settings

async def main():
    process = TrainerProcess(trainer_command(Settings()), threads=1, nice=0, timeout_s=120)
    await process.ask(Tokenize([{"role": "user", "content": "hello"}]), Tokenized)
    print("pid", process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.train
def test_it_dies_with_a_killed_worker() -> None:
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as owner:
        assert owner.stdout is not None
        lines = iter(owner.stdout.readline, b"")  # its log is there too
        pid = int(next(line for line in lines if line.startswith(b"pid ")).split()[1])
        assert is_alive(pid)
        owner.kill()
    assert until(lambda: not is_alive(pid))


SAMPLES = [
    TrainSample([5, 6, 7], [8, 9, 10], [-1.0, -1.0, -1.0], [0.5] * 3),
    TrainSample([5, 6, 7], [9, 9, 11], [-1.0, -1.0, -1.0], [-0.5] * 3),
]


def checkpoint(root: Path, step: int) -> Checkpoint:
    adapter, state = str(root / f"s{step}" / "adapter"), str(root / f"s{step}" / "state")
    return Checkpoint(step, Policy(f"s{step}", adapter), adapter, state)


@pytest.mark.train
async def test_the_real_one_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    command = trainer_command(Settings(model=str(ROOT / "demo" / "model")))
    start = Checkpoint(0, Policy("identity", ""), None, None)
    one, two, again = (checkpoint(tmp_path, step) for step in (1, 2, 3))
    config = LearnerConfig(rank=16, alpha=32, learning_rate=1e-3, seed=3)
    async with trainer(command, timeout_s=120) as process:
        learner = Learner(process, config)
        await learner.update(start, SAMPLES, one)
        await learner.update(one, SAMPLES, two)
        await process.stop()  # dies; the same step is redone from the files
        await learner.update(one, SAMPLES, again)
        scores = await learner.score(again, SAMPLES)
        await learner.close()
    weights = [
        (Path(str(c.adapter_dir)) / "adapter_model.safetensors").read_bytes()
        for c in (one, two, again)
    ]
    assert weights[1] == weights[2] != weights[0]
    assert scores.adapter != scores.base


@pytest.mark.parametrize("held", [1, 2, 3])
async def test_a_learner_that_was_interrupted_has_nothing_to_close(
    tmp_path: Path, held: int
) -> None:
    write_adapter(tmp_path, 0.5)
    fake = FakeTrainer()
    fake.hold_from = held  # to open, to score with the adapter, to score without it
    learner = Learner(fake, LearnerConfig())
    checkpoint = Checkpoint(0, Policy("live", str(tmp_path)), str(tmp_path), None)
    scoring = asyncio.create_task(learner.score(checkpoint, []))
    await fake.held.wait()
    scoring.cancel()
    await asyncio.gather(scoring, return_exceptions=True)
    fake.hold_from = None
    await learner.close()
    assert fake.count(Close) == 0
    await learner.score(checkpoint, [])
    await learner.close()
    assert fake.count(Close) == 1


async def test_a_learner_that_was_interrupted_while_it_averaged_has_nothing_to_close(
    tmp_path: Path,
) -> None:
    write_adapter(tmp_path, 0.5)
    fake = FakeTrainer()
    learner = Learner(fake, LearnerConfig())
    start = Checkpoint(0, Policy("live", str(tmp_path)), str(tmp_path), None)
    await learner.score(start, [])
    fake.hold_from = len(fake.asked) + 1
    averaging = asyncio.create_task(learner.average([start, start], checkpoint(tmp_path, 1)))
    await asyncio.wait_for(fake.held.wait(), 60)
    averaging.cancel()
    await asyncio.gather(averaging, return_exceptions=True)
    fake.hold_from = None
    await learner.close()
    assert (fake.count(Average), fake.count(Close)) == (1, 0)
