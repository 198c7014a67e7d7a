"""Several micro-batches at a time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.batch import LearnerConfig, TrainSample

pytestmark = pytest.mark.train

CONFIG = LearnerConfig(
    rank=4, alpha=8, learning_rate=1e-2, token_budget=9, kl_coef=0.1, minibatches=2
)


@pytest.fixture
def parallel(float32_base: Any) -> Iterator[Any]:
    """A policy with three workers."""
    from adapters.training.parallel import Workers
    from adapters.training.policy import Policy

    policy = Policy(replace(float32_base, workers=Workers(3)))
    yield policy
    policy.close()


class Forks:
    """Forks as always, and remembers which; the rest is for the test."""

    def __init__(self, most: int = 99) -> None:
        self._fork, self._most = os.fork, most
        self.pids: list[int] = []

    def __call__(self) -> int:
        if len(self.pids) == self._most:
            raise BlockingIOError("no more processes")
        self.pids.append(self._fork())
        return self.pids[-1]

    def check_gone(self) -> None:
        """Each has ended, and its parent knows."""
        for pid in self.pids:
            with pytest.raises(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def train(policy: Any, samples: list[TrainSample], folder: Path) -> bytes:
    """The weights after two steps from the identity."""
    from adapters.training.update import update

    policy.open(CONFIG, None, None)
    for _ in range(2):
        update(policy, samples)
    policy.save(folder / "adapter", folder / "state")
    return (folder / "state" / "state.safetensors").read_bytes()


def test_workers_compute_what_one_computes(
    parallel: Any, model_dir: Path, samples: list[TrainSample]
) -> None:
    import torch

    from adapters.training.base_model import load_base
    from adapters.training.policy import Policy
    from adapters.training.update import score, update

    alone = Policy(load_base(str(model_dir), device="cpu", dtype="float32"))
    for policy in (parallel, alone):
        policy.open(CONFIG, None, None)
    for _ in range(2):
        ours, theirs = update(parallel, samples), update(alone, samples)
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-6)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)
        assert ours.kl_base == pytest.approx(theirs.kl_base, rel=1e-3, abs=1e-7)
        assert (ours.num_tokens, ours.num_updates) == (theirs.num_tokens, theirs.num_updates)
    for name, master in parallel._opened().masters.items():
        expected = alone._opened().masters[name].detach()
        torch.testing.assert_close(master.detach(), expected, rtol=1e-3, atol=1e-4)
    for under in ("adapter", "base"):
        settings: dict[str, Any] = {"under": under, "temperature": 1.0, "token_budget": 9}
        for ours, theirs in zip(
            score(parallel, samples, **settings), score(alone, samples, **settings), strict=True
        ):
            assert ours == pytest.approx(theirs, abs=1e-3)


def test_which_worker_is_first_makes_no_difference(
    parallel: Any, samples: list[TrainSample], tmp_path: Path
) -> None:
    from adapters.training.update import score

    first = train(parallel, samples, tmp_path / "a")
    scores = score(parallel, samples, under="adapter", temperature=1.0, token_budget=9)
    assert train(parallel, samples, tmp_path / "b") == first
    assert score(parallel, samples, under="adapter", temperature=1.0, token_budget=9) == scores


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_error_is_raised_when_nobody_works_any_more(
    parallel: Any, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    workers, forks = parallel.base.workers, Forks()
    monkeypatch.setattr(os, "fork", forks)

    def work(item: int) -> int:
        if item == at:
            raise ValueError(f"no {item}")
        time.sleep(0 if item == 2 else 60)
        return item

    started = time.monotonic()
    with pytest.raises(ValueError, match=f"no {at}") as raised:
        workers.each(work, [2, 0, 1] if at == 2 else [2, at])
    assert at == 2 or "in work" in raised.value.__notes__[0]  # where it was raised
    assert time.monotonic() - started < 30
    assert len(forks.pids) == (2 if at == 2 else 1)
    forks.check_gone()
    assert workers.each(lambda item: item * 2, [3, 1, 2, 5]) == [6, 2, 4, 10]


def test_a_helper_that_dies_is_said_so(parallel: Any) -> None:
    from adapters.training.parallel import HelperDied

    def work(item: int) -> int:
        if item == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with pytest.raises(HelperDied):
        parallel.base.workers.each(work, [1, 2, 3])
    assert parallel.base.workers.each(abs, [-1, 2, -3]) == [1, 2, 3]


def test_what_cannot_be_sent_back_is_said_so(parallel: Any) -> None:
    from adapters.training.parallel import HelperDied

    with pytest.raises(HelperDied, match="cannot be sent"):
        parallel.base.workers.each(lambda item: lambda: item, [1, 2])


def test_nothing_is_left_when_no_process_can_be_forked(
    parallel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks = Forks(most=1)
    monkeypatch.setattr(os, "fork", forks)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BlockingIOError):
        parallel.base.workers.each(abs, [1, 2, 3])
    assert len(forks.pids) == 1
    forks.check_gone()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_helper_dies_with_its_parent(parallel: Any) -> None:
    reading, writing = os.pipe()
    parent = os.fork()
    if not parent:

        def work(item: int) -> None:
            if item == 1:
                os.write(writing, f"{os.getpid()}".encode())
                time.sleep(60)
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)

        parallel.base.workers.each(work, [0, 1])
    os.close(writing)
    os.waitpid(parent, 0)
    with os.fdopen(reading, "rb") as pipe:
        assert int(pipe.read())  # ends when the helper, which holds its other end, has ended


def test_shares_are_even_and_complete(parallel: Any) -> None:
    items = list(range(10))
    shares = parallel.base.workers.shares(items, [size % 4 + 1 for size in items])
    loads = [sum(item % 4 + 1 for item in share) for share in shares]
    assert sorted(item for share in shares for item in share) == items
    assert len(shares) == 3
    assert max(loads) - min(loads) <= 4
    assert parallel.base.workers.shares([7], [1]) == [[7]]
