"""The command: files in and out, progress and totals on stderr."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from adapters.answers import Equivalence
from adapters.answers.worker import JudgeFailed
from server.errors import ConfigurationError
from server.vote.groups import BadLine, Totals, VoteRules, vote_on

MAX_LINE = 64 * 2**20  # bytes; what is longer is no group
STDIN = Path("-")


def run_vote(
    file: Path,
    rules: VoteRules,
    stderr: Console,
    *,
    output: Path | None,
    strict: bool,
    workers: int,
) -> int:
    """Vote on all groups of a file; the exit status: 1 if it stopped at a bad line, or if there was
    no group at all.

    Args:
        file: JSON lines; `-` is stdin.
        output: None is stdout. A file is replaced when all is written; errors leave it alone.
        strict: stop at the first bad line.
        workers: judge processes, and threads that use them.

    Raises:
        ConfigurationError: a file cannot be opened, the input would be overwritten, or the kind of
            answer cannot be read here.
    """
    totals = Totals()
    try:
        with ExitStack() as stack:
            source = stack.enter_context(_source(file))
            judge = stack.enter_context(Equivalence(workers=workers))
            judge.prepare(rules.spec)
            sink = stack.enter_context(_sink(output, file))
            progress = stack.enter_context(_progress(stderr))
            started = time.monotonic()
            stopped = _vote(source, sink, rules, judge, progress, totals, strict, workers)
            seconds = time.monotonic() - started
    except JudgeFailed as error:
        raise ConfigurationError(f"vote: {error}") from None
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    stderr.print(_table(totals, seconds))
    return 1 if stopped or totals.groups == 0 else 0


def _vote(
    source: BinaryIO,
    sink: BinaryIO,
    rules: VoteRules,
    judge: Equivalence,
    progress: Progress,
    totals: Totals,
    strict: bool,
    workers: int,
) -> bool:
    """Whether it stopped at a bad line."""
    encode = msgspec.json.Encoder().encode
    task = progress.add_task("groups", total=None)
    for outcome in vote_on(lines_of(source), rules, judge, threads=workers):
        totals.add(outcome)
        progress.advance(task)
        if isinstance(outcome, BadLine):
            problem = escape(f"line {outcome.number}: {outcome.problem}")
            progress.console.print(f"[red]{problem}[/red]", soft_wrap=True)
            if strict:
                return True
        else:
            sink.write(encode(outcome.voted) + b"\n")
    sink.flush()
    return False


def lines_of(source: BinaryIO, longest: int = MAX_LINE) -> Iterator[bytes]:
    """Its lines; of one that is too long only the beginning, which is no JSON then."""
    while line := source.readline(longest):
        yield line
        rest = line
        while not rest.endswith(b"\n") and (rest := source.readline(longest)):
            pass


@contextmanager
def _source(path: Path) -> Generator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    with _named(path):
        opened = path.open("rb")
    with opened:
        yield opened


@contextmanager
def _sink(path: Path | None, source: Path) -> Generator[BinaryIO]:
    """Where votes go: stdout, a pipe or device as it is, or a file that takes the place of `path`
    when all is written.
    """
    if path is None or path == STDIN:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    with _named(path):
        exists = path.exists()
        if exists and source != STDIN and path.samefile(source):
            raise ConfigurationError(f"vote: {path} is the input too; write to another file.")
        if exists and not path.is_file():
            opened, partial = path.open("wb"), None
        else:
            whole = path.resolve()  # a link stays one
            partial = whole.with_name(f".{whole.name[:200]}.{secrets.token_hex(8)}")
            opened = partial.open("xb")
    try:
        with opened:
            yield opened
        if partial is not None:
            with _named(path):
                if exists:
                    shutil.copymode(path, partial)
                partial.replace(path.resolve())
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Generator[None]:
    """Errors about a file say which one."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"vote: {path}: {error.strerror}") from error


def _progress(stderr: Console) -> Progress:
    columns = (
        TextColumn("{task.completed:.0f} {task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)


def _table(totals: Totals, seconds: float) -> Table:
    table = Table(show_header=False, title="Votes")
    groups = max(totals.groups, 1)
    table.add_row("groups", f"{totals.groups:,}")
    table.add_row("labelled", f"{totals.labelled:,}")
    abstained = ", ".join(f"{reason} {count:,}" for reason, count in totals.reasons.most_common())
    table.add_row("abstained", f"{totals.groups - totals.labelled:,} {abstained}".strip())
    table.add_row("mean majority ratio", f"{totals.majority_ratio / groups:.3f}")
    if totals.truths:
        table.add_row("label accuracy", _share(totals.right_labels, totals.truths))
    if totals.known_rewards:
        table.add_row("reward accuracy", _share(totals.right_rewards, totals.known_rewards))
    table.add_row("bad lines", f"{totals.bad_lines:,}")
    table.add_row("groups a second", f"{totals.groups / max(seconds, 1e-9):,.0f}")
    return table


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%} ({part:,} of {whole:,})"
