"""The trainer as its users see it: lines in, lines out."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.batch import (
    Average,
    Close,
    Closed,
    Failed,
    LearnerConfig,
    Open,
    Opened,
    Ready,
    Reply,
    Request,
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

pytestmark = pytest.mark.train

CONFIG = LearnerConfig(rank=4, alpha=8)
SAMPLE = TrainSample([3, 4], [5, 6], [-4.0, -4.0], [0.5, 0.5])


def talk(base: Any, *lines: Request | bytes) -> list[Reply]:
    """Replies of a trainer in this process to these lines, without the first."""
    from adapters.training.process import serve

    encoded = [line if isinstance(line, bytes) else msgspec.json.encode(line) for line in lines]
    replies = io.BytesIO()
    assert serve(lambda: base, io.BytesIO(b"\n".join(encoded)), replies) == 0
    ready, *rest = map(msgspec.json.Decoder(Reply).decode, replies.getvalue().splitlines())
    assert isinstance(ready, Ready)
    return rest


BAD_LINES = {
    "garbage": b"\xff\x00 garbage",
    "empty": b"",
    "not an object": b"[1, 2]",
    "unknown type": b'{"type": "explode"}',
    "missing field": b'{"type": "step"}',
    "wrong type": b'{"type": "step", "samples": [{"prompt_ids": ["a"]}]}',
    "no adapter": msgspec.json.encode(Step([SAMPLE])),
    "nothing to save": msgspec.json.encode(Save("/nonexistent/adapter")),
    "no such adapter": msgspec.json.encode(Open(CONFIG, "/nonexistent/adapter")),
    "rank 0": msgspec.json.encode(Open(LearnerConfig(rank=0))),
    "temperature 0": msgspec.json.encode(Score([SAMPLE], "base", 0.0)),
    "unknown policy": msgspec.json.encode(Score([SAMPLE], "other")),
    "no role": b'{"type": "tokenize", "messages": [{"content": "hi"}]}',
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_answered_and_the_next_one_served(float32_base: Any, line: bytes) -> None:
    failed, tokenized = talk(float32_base, line, Tokenize([{"role": "user", "content": "ab"}]))
    assert isinstance(failed, Failed)
    assert failed.kind
    assert tokenized == Tokenized([2, 3, 4, 1])


def test_a_model_that_cannot_be_loaded_is_reported() -> None:
    from adapters.training.process import serve

    def load() -> Any:
        raise OSError("no such model")

    replies = io.BytesIO()
    assert serve(load, io.BytesIO(), replies) == 1
    reply = msgspec.json.decode(replies.getvalue(), type=Failed)
    assert reply == Failed("OSError", "no such model")


def test_the_real_process(model_dir: Path, tmp_path: Path) -> None:
    decoder = msgspec.json.Decoder(Reply)
    command = [sys.executable, "-m", "adapters.training", "serve", "--model", str(model_dir)]
    with subprocess.Popen(
        [*command, "--device", "cpu"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ready = decoder.decode(process.stdout.readline())
        assert isinstance(ready, Ready)
        assert len(ready.base_digest) == 64
        requests: list[Request | bytes] = [
            b"garbage",
            Open(CONFIG),
            Step([SAMPLE, TrainSample([3, 4], [7, 8], [-4.0, -4.0], [-0.5, -0.5])]),
            Save(str(tmp_path / "adapter"), str(tmp_path / "state")),
            Open(CONFIG, str(tmp_path / "adapter"), str(tmp_path / "state")),
            Average(CONFIG, [str(tmp_path / "adapter")] * 2, str(tmp_path / "mean")),
            Score([SAMPLE]),
            Tokenize([{"role": "user", "content": "a"}]),
            Close(),
            Score([SAMPLE]),
        ]
        kinds: list[type[Reply]] = []
        for request in requests:
            line = request if isinstance(request, bytes) else msgspec.json.encode(request)
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            kinds.append(type(decoder.decode(process.stdout.readline())))
        assert kinds == [
            Failed,
            Opened,
            Stepped,
            Saved,
            Opened,
            Saved,
            Scored,
            Tokenized,
            Closed,
            Failed,
        ]
        process.stdin.close()
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == b""


NOISY = """
import os
from adapters.training.channel import claim_stdout
replies = claim_stdout()
print("noise from python")
os.system("echo noise from a child")
os.write(1, b"noise from a library")
replies.write(b"a reply")
"""


def test_nothing_but_replies_reaches_stdout() -> None:
    done = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, check=True)
    assert done.stdout == b"a reply"
    assert done.stderr.count(b"noise") == 3


CHILD = (
    "import signal; from adapters.training.channel import die_with_parent; die_with_parent(); "
    "print('ready', flush=True); signal.pause()"
)
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


def test_the_process_dies_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent, parent.stdout as output:
        assert output.readline() == b"ready\n"
        os.kill(parent.pid, signal.SIGKILL)
        assert output.read() == b""  # the pipe ends when the child that holds it is gone
