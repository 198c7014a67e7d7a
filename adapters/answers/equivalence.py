"""Answers put into classes of equal ones.

Equal canonical keys are equal answers; that settles most groups without any algebra. The remaining
unique keys are compared, most frequent first, with the representatives of the classes so far
(math-verify is not transitive, so there is no closure over pairs), in killable processes and within
a budget of comparisons and of time. What the budget leaves over stays a class of its own.
"""

from __future__ import annotations

import re
import time
from collections import Counter, OrderedDict
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from queue import LifoQueue
from threading import Lock
from types import TracebackType

from adapters.answers.canonical import canonical, sequence
from adapters.answers.extraction import AnswerKind
from adapters.answers.numbers import canonical_number
from adapters.answers.worker import Worker

MAX_COMPARISONS = 64  # by the judge, in one call
CACHE_SIZE = 65_536  # pairs whose verdict is remembered
_BASED = re.compile(r"[0-9a-zA-Z]+_(?:\w|\{\w+\})")
_SETTLED = re.compile(r"[^\W\d_]+(?: [^\W\d_]+)*")


class Equivalence:
    """Finds equal answers. Holds the judge's processes, which start when they are first needed.

    Thread-safe: each worker serves one thread at a time. A call blocks, so an event loop calls it
    in a thread.

    Args:
        workers: judge processes; more calls than that at once wait for each other.
        deadline_s: most seconds that the judge may take in one call, over all its comparisons.
    """

    def __init__(self, *, workers: int = 1, deadline_s: float = 2.0) -> None:
        if workers < 1 or deadline_s <= 0:
            raise ValueError(f"workers={workers}, deadline_s={deadline_s}")
        self._deadline_s = deadline_s
        self._num_workers = workers
        self._idle: LifoQueue[Worker] = LifoQueue()
        for _ in range(workers):
            self._idle.put(Worker())
        self._verdicts = _Cache(CACHE_SIZE)
        self._closed = False

    def __enter__(self) -> Equivalence:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, after the calls in progress. Idempotent."""
        if self._closed:
            return
        self._closed = True
        workers = [self._idle.get() for _ in range(self._num_workers)]
        for worker in workers:
            worker.close()
            self._idle.put(worker)  # for whoever waits for one, to find out that it is too late

    def classes(
        self, answers: Sequence[str | None], kind: AnswerKind, *, known: Iterable[str] = ()
    ) -> list[str | None]:
        """The representative of each answer's class, aligned with `answers`.

        Equal answers have equal representatives. The representative is the class's most frequent
        key (ties: the smallest), so it does not depend on the order of the answers. None stays
        None, and so does what is no answer of this kind.

        Args:
            answers: as `extract` returned them.
            kind: how they are read.
            known: representatives of an earlier call. A class that equals one of them keeps its
                name, which makes the results of two calls comparable.

        Raises:
            RuntimeError: it is closed.
            JudgeFailed: a judge process is needed and does not start.
        """
        if self._closed:
            raise RuntimeError("closed")
        keys = [None if answer is None else canonical(answer, kind) for answer in answers]
        counts = Counter(key for key in keys if key is not None)
        names = sorted(set(known))
        order = sorted(counts, key=lambda key: (-counts[key], key))
        algebra = kind in ("auto", "math")
        representative = self._cluster([*names, *order], algebra=algebra)
        return [None if key is None else representative[key] for key in keys]

    def _cluster(self, keys: Sequence[str], *, algebra: bool) -> dict[str, str]:
        """Each key's representative: the first of `keys` that it equals."""
        representative: dict[str, str] = {}
        budget = _Budget(MAX_COMPARISONS, self._deadline_s)
        for key in keys:
            if key in representative:
                continue
            heads = list(dict.fromkeys(representative.values())) if algebra else []
            match = next((head for head in heads if self._same(head, key, budget)), key)
            representative[key] = match
        return representative

    def _same(self, first: str, second: str, budget: _Budget) -> bool:
        pairs = obligations(first, second)
        return pairs is not None and all(self._verdict(a, b, budget) for a, b in pairs)

    def _verdict(self, one: str, other: str, budget: _Budget) -> bool:
        """What the judge says, or said before. Late counts as different, and is remembered where
        it was given its full time: the same hostile pair must not cost it again and again.
        """
        first, second = sorted((one, other))
        verdict = self._verdicts.get((first, second))
        if verdict is not None:
            return verdict
        if budget.is_spent:
            return False
        with self._worker() as worker:
            worker.start()  # takes seconds the first time, which are not the answers' fault
            with budget.spend() as seconds:
                answer = worker.equal(first, second, seconds)
        if answer is not None or seconds >= budget.longest_s:
            self._verdicts.put((first, second), bool(answer))
        return bool(answer)

    @contextmanager
    def _worker(self) -> Generator[Worker]:
        worker = self._idle.get()
        try:
            if self._closed:
                raise RuntimeError("closed")
            yield worker
        finally:
            self._idle.put(worker)


def obligations(first: str, second: str) -> list[tuple[str, str]] | None:
    """What the judge must find equal for two different keys to be equal; None: they are not.

    Two exact numbers, or words, or numbers in another base, need no judge, and it would err on them
    (it rounds, and reads `204_5` as 204). Points and intervals are compared element by element,
    because it reads `(2,1)` as an empty interval.
    """
    if _is_settled(first) or _is_settled(second):
        return None
    one, two = sequence(first), sequence(second)
    exact = [canonical_number(key) is not None for key in (first, second)]
    if all(exact) or (any(exact) and (one or two)):
        return None
    if any(key.endswith("%") for key in (first, second)):
        return None
    if one is None or two is None or r"\{" in (one.left, two.left):
        return [(first, second)]
    if (one.left, one.right) != (two.left, two.right) or len(one.elements) != len(two.elements):
        return None
    pairs: list[tuple[str, str]] = []
    for a, b in zip(one.elements, two.elements, strict=True):
        needed = [] if a == b else obligations(a, b)
        if needed is None:
            return None
        pairs.extend(needed)
    return pairs


def _is_settled(key: str) -> bool:
    return _SETTLED.fullmatch(key) is not None or _BASED.fullmatch(key) is not None


class _Budget:
    """What one call may still ask of the judge. One pair gets at most half of the time, so that a
    hostile one leaves some for the others.
    """

    def __init__(self, comparisons: int, seconds: float) -> None:
        self.longest_s = seconds / 2
        self._comparisons = comparisons
        self._seconds = seconds

    @property
    def is_spent(self) -> bool:
        return self._comparisons <= 0 or self._seconds <= 0

    @contextmanager
    def spend(self) -> Generator[float]:
        """The seconds that the comparison inside may take; what it takes is gone."""
        self._comparisons -= 1
        started = time.monotonic()
        yield min(self.longest_s, self._seconds)
        self._seconds -= time.monotonic() - started


class _Cache:
    """Verdicts by pair, the least recently used forgotten first. Thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[tuple[str, str], bool] = OrderedDict()
        self._lock = Lock()

    def get(self, pair: tuple[str, str]) -> bool | None:
        with self._lock:
            if pair not in self._items:
                return None
            self._items.move_to_end(pair)
            return self._items[pair]

    def put(self, pair: tuple[str, str], verdict: bool) -> None:
        with self._lock:
            self._items[pair] = verdict
            self._items.move_to_end(pair)
            while len(self._items) > self._size:
                self._items.popitem(last=False)
