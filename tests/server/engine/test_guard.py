"""The guard takes the whole tree of its command down, however the owner ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from server.engine.guard import guarded
from tests.server.engine.processes import all_gone, is_alive, pids_in, until

STANDIN = Path(__file__).with_name("standin.py")


def start(pids: Path, *flags: str, grace_s: float = 10.0) -> subprocess.Popen[bytes]:
    """A guarded stand-in on a port that nobody asks."""
    command = guarded([sys.executable, str(STANDIN), "0", str(pids), *flags], grace_s=grace_s)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)


@pytest.fixture
def pids(tmp_path: Path) -> Generator[Path]:
    """Where the stand-in's family notes its pids; nobody of it outlives the test."""
    path = tmp_path / "pids"
    path.touch()
    yield path
    for pid in pids_in(path):
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("flags", [(), ("--stubborn",)])
def test_end_of_the_lifeline_ends_the_tree(pids: Path, flags: tuple[str, ...]) -> None:
    with start(pids, *flags, grace_s=0.2) as guard:
        assert until(lambda: len(pids_in(pids)) == 4)
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(timeout=30)
    assert all_gone(pids_in(pids))


def test_sigterm_to_the_guard_ends_the_tree(pids: Path) -> None:
    with start(pids) as guard:
        assert until(lambda: len(pids_in(pids)) == 4)
        guard.terminate()
        assert guard.wait(timeout=30) == 128 + signal.SIGTERM
    assert all_gone(pids_in(pids))


def test_a_killed_command_takes_its_descendants_along(pids: Path) -> None:
    with start(pids) as guard:
        assert until(lambda: len(pids_in(pids)) == 4)
        os.kill(pids_in(pids)[-1], signal.SIGKILL)
        assert guard.wait(timeout=30) == 128 + signal.SIGKILL
    assert all_gone(pids_in(pids))


def test_what_a_dead_command_leaves_gets_little_grace(pids: Path) -> None:
    with start(pids, "--stubborn", grace_s=600) as guard:
        assert until(lambda: len(pids_in(pids)) == 4)
        os.kill(pids_in(pids)[-1], signal.SIGKILL)
        assert guard.wait(timeout=30) == 128 + signal.SIGKILL
    assert all_gone(pids_in(pids))


def test_a_killed_guard_takes_the_command_along(pids: Path) -> None:
    with start(pids) as guard:
        assert until(lambda: len(pids_in(pids)) == 4)
        guard.kill()
    assert all_gone(pids_in(pids)[-1:])


def test_the_exit_status_is_the_commands(pids: Path) -> None:
    with start(pids, "--refuse") as guard:
        assert guard.wait(timeout=30) == 3


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    command = guarded([str(tmp_path / "nothing")])
    done = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True, timeout=30)
    assert done.returncode == 127
    assert b"nothing: No such file" in done.stderr


def test_a_lifeline_beside_standard_input() -> None:
    readable, writable = os.pipe()
    command = guarded([sys.executable, "-c", "print(input())"], fd=readable)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[readable]
    ) as guard:
        os.close(readable)
        output, _ = guard.communicate(b"through\n", timeout=30)
        os.close(writable)
    assert output == b"through\n"
