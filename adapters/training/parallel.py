"""Parts of a batch at the same time, each in a process of its own with one torch thread.

On a CPU that is faster than one part after the other in several torch threads, which wait for each
other at the end of each small product; and than threads with a part each, which wait for each
other's Python in between. A helper is forked for the work and knows everything that its parent
does, without a copy; it sends back its results and ends. What is computed does not depend on which
part is done first. A GPU is kept busy by one part.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Generic, NoReturn, TypeVar

from adapters.training.channel import die_with_parent

T = TypeVar("T")
R = TypeVar("R")


class HelperDied(RuntimeError):
    """A helper ended without its results, for example because there was no memory for it."""


class Workers:
    """This process and `count` - 1 helpers."""

    def __init__(self, count: int = 1) -> None:
        self.count = count

    def each(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Results in the order of the items; what else the function leaves behind in a helper is
        lost. An error is raised when no item is worked on any more.

        Raises HelperDied, OSError when no process can be forked, and what the function raises.
        """
        count = min(self.count, len(items))
        if count <= 1:
            return [function(item) for item in items]
        with ExitStack() as stack:
            helpers: list[Helper[R]] = []
            for first in range(1, count):
                helpers.append(Helper(function, items[first::count]))
                stack.callback(helpers[-1].end)
            parts = [[function(item) for item in items[::count]]]
            parts += [helper.results() for helper in helpers]
        return [parts[place % count][place // count] for place in range(len(items))]

    def shares(self, items: Sequence[T], sizes: Sequence[int]) -> list[list[T]]:
        """The items, in as many lists as there are workers (or fewer), of about equal size each."""
        shares: list[list[T]] = [[] for _ in range(min(self.count, len(items)))]
        loads = [0] * len(shares)
        for index in sorted(range(len(items)), key=lambda index: -sizes[index]):
            least = loads.index(min(loads))
            shares[least].append(items[index])
            loads[least] += sizes[index]
        return shares


class Helper(Generic[R]):
    """A forked process at work. It dies with its parent."""

    def __init__(self, function: Callable[[T], R], items: Sequence[T]) -> None:
        parent, (reading, writing) = os.getpid(), os.pipe()
        self._pipe = os.fdopen(reading, "rb")
        try:
            self._pid = os.fork()
        except OSError:
            self._pipe.close()
            os.close(writing)
            raise
        if not self._pid:
            _work(parent, function, items, writing)
        os.close(writing)

    def results(self) -> list[R]:
        """Wait for them. Raises HelperDied, and what the function raised."""
        try:
            found: list[R] | Exception = pickle.load(self._pipe)
        except (EOFError, pickle.UnpicklingError):
            raise HelperDied("a process that computed a part of the batch has died") from None
        if isinstance(found, Exception):
            raise found
        return found

    def end(self) -> None:
        """It works no more, whether it was done or not."""
        self._pipe.close()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _work(
    parent: int, function: Callable[[Any], Any], items: Sequence[Any], writing: int
) -> NoReturn:
    """What a helper does. It ends without what a process otherwise does at its end: buffers and
    files are its parent's.
    """
    status = 1
    try:
        die_with_parent(parent)
        gc.disable()  # a collection would write to, and so copy, every object there is
        try:
            found: list[Any] | Exception = [function(item) for item in items]
        except Exception as error:
            error.add_note(traceback.format_exc())  # its own does not travel
            found = error
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(_pickled(found))
        status = 0
    finally:
        os._exit(status)


def _pickled(found: object) -> bytes:
    try:
        return pickle.dumps(found, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return pickle.dumps(HelperDied(f"a helper's results cannot be sent: {error}; {found!r}"))
