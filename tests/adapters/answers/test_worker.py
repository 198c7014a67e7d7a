from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.answers.worker import JUDGE, JudgeFailed, Worker, _spawn

READY = "print('\"ready\"', flush=True)"
LIVE_LONG = f"import time; {READY}; time.sleep(600)"
BABBLE = f"import sys; {READY}\nfor line in sys.stdin: print('no json', flush=True)"
FLOOD = f"import sys; {READY}\nfor line in sys.stdin: print('x' * 100000, flush=True)"
DIE = f"import sys; {READY}; sys.stdin.readline()"
AGREE = f"import sys; {READY}\nfor line in sys.stdin: print('\"equal\"', flush=True)"


@pytest.fixture(scope="module")
def judge() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


@pytest.mark.parametrize("program", [LIVE_LONG, BABBLE, FLOOD, DIE])
def test_a_process_that_does_not_answer_is_ended(program: str) -> None:
    worker = Worker((sys.executable, "-c", program))
    process = worker.start()
    assert worker.equal("a", "b", 0.01) is None
    assert process.poll() is not None
    assert worker.process_id is None


def test_a_new_process_is_started_after_one_was_ended() -> None:
    worker = Worker((sys.executable, "-c", AGREE))
    first = worker.start()
    first.kill()
    first.wait()
    assert worker.equal("a", "b", 10.0) is True
    assert worker.process_id not in (None, first.pid)
    worker.close()


def test_a_judge_that_cannot_start_is_an_error() -> None:
    worker = Worker((sys.executable, "-c", "raise SystemExit(1)"))
    with pytest.raises(JudgeFailed):
        worker.equal("a", "b", 1.0)


def test_closing_ends_the_process() -> None:
    worker = Worker((sys.executable, "-c", AGREE))
    process = worker.start()
    worker.close()
    worker.close()
    assert process.poll() is not None


def test_the_judge_judges_both_ways_round(judge: Worker) -> None:
    assert judge.equal("x=5", "5", 30.0) is True
    assert judge.equal("5", "x=5", 30.0) is True
    assert judge.equal("5", "6", 30.0) is False


def test_the_judge_goes_on_after_an_answer_that_was_late(judge: Worker) -> None:
    assert judge.equal(r"\sum_{n=1}^{10000000000} n^n", r"\sqrt{2}+y", 0.5) is None
    assert judge.equal("x+1", "1+x", 30.0) is True


def test_the_judge_sees_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTRL_ADMIN_KEY", "secret")
    worker = Worker((sys.executable, "-c", f"import time; {READY}; time.sleep(600)"))
    environment = Path(f"/proc/{worker.start().pid}/environ").read_bytes()
    worker.close()
    assert b"TTRL_ADMIN_KEY" not in environment


def test_the_judge_does_not_load_torch(judge: Worker) -> None:
    judge.equal("x+1", "1+x", 30.0)
    assert "torch" not in Path(f"/proc/{judge.process_id}/maps").read_text()


def test_the_judge_evaluates_no_python(judge: Worker) -> None:
    before = set(os.listdir())
    judge.equal('__import__("os").mkdir("pwned")', r"\sqrt{2}", 10.0)
    judge.equal('$__import__("os").mkdir("pwned")$', r"\sqrt{2}", 10.0)
    assert set(os.listdir()) == before


@pytest.mark.parametrize("request_line", [b"", b'["9^{9^{9^{9}}}", "x+y", 0.2]\n', b"no json\n"])
@pytest.mark.timeout(120)
def test_a_judge_whose_parent_is_gone_ends_by_itself(request_line: bytes) -> None:
    process = _spawn(JUDGE)
    process.communicate(request_line)
    assert process.poll() is not None
