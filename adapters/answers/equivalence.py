"""Answers found in texts, and put into classes of equal ones.

Equal canonical keys are equal answers; that settles most groups without any algebra. The remaining
unique keys are compared, most frequent first, with the representatives of the classes so far
(equality up to rounding is not transitive, so there is no closure over pairs): by their values at
sample points, and where those say nothing by math-verify, in killable processes and within a budget
of comparisons and of time. What the budget leaves over stays a class of its own.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from queue import LifoQueue
from threading import Lock
from types import TracebackType

from adapters.answers.canonical import canonical
from adapters.answers.comparison import obligations
from adapters.answers.defects import defects_named
from adapters.answers.entry_point import Found
from adapters.answers.extraction import extract, storable
from adapters.answers.final_part import LONG_TAIL
from adapters.answers.spec import AnswerKind, AnswerSpec, as_spec
from adapters.answers.worker import JUDGE, JudgeFailed, Worker, entry_point_command

MAX_COMPARISONS = 64  # by the judge, in one call
CACHE_SIZE = 65_536  # pairs whose verdict is remembered


class Equivalence:
    """Finds answers and equal answers. Holds the processes for it, which start when first needed.

    Thread-safe: each process serves one thread at a time. A call blocks, so an event loop calls it
    in a thread.

    Args:
        workers: processes of each sort; more calls than that at once wait for each other.
        deadline_s: most seconds that the processes may take in one call, over all that it asks.
    """

    def __init__(self, *, workers: int = 1, deadline_s: float = 2.0) -> None:
        if workers < 1 or deadline_s <= 0:
            raise ValueError(f"workers={workers}, deadline_s={deadline_s}")
        self._deadline_s = deadline_s
        self._num_workers = workers
        self._judges = _Pool([Worker(JUDGE) for _ in range(workers)])
        self._functions: dict[str, _Pool] = {}
        self._lock = Lock()
        self._verdicts = _Cache(CACHE_SIZE)

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
        self._judges.close()
        with self._lock:
            pools = list(self._functions.values())
        for pool in pools:
            pool.close()

    def prepare(self, spec: AnswerSpec | AnswerKind) -> None:
        """Start what this kind cannot do without: the functions of a `python` kind. The judge is
        seldom asked, so it starts when it is.

        Raises:
            JudgeFailed: the function cannot be loaded.
        """
        spec = as_spec(spec)
        if spec.kind == "python":
            self._pool_of(spec.entry_point or "").start()

    def extract(self, texts: Sequence[str], spec: AnswerSpec | AnswerKind) -> list[str | None]:
        """The final answer of each text, as `adapters.answers.extract` finds it; for the kind
        `python` its function does, in a process. What it cannot tell in time has no answer.

        Raises:
            RuntimeError: it is closed.
            JudgeFailed: the function of a `python` kind cannot be loaded.
            Defect: our code failed on one of the texts.
        """
        spec = as_spec(spec)
        if spec.kind != "python":
            with defects_named():
                return [extract(text, spec) for text in texts]
        budget = _Budget(len(texts), self._deadline_s)
        name = spec.entry_point or ""
        try:
            with self._pool_of(name).borrow() as worker:
                found = [self._call(worker, text, budget) for text in texts]
        except JudgeFailed:
            self._forget(name)
            raise
        return [None if answer is None else storable(answer, spec) for answer in found]

    def _call(self, worker: Worker, text: str, budget: _Budget) -> str | None:
        if budget.is_spent:
            return None
        worker.start()
        storable_text = text[-LONG_TAIL:].encode("utf-8", "replace").decode("utf-8")
        with budget.spend() as seconds:
            found = worker.ask((storable_text, seconds), seconds, Found)
        return None if found is None else found.answer

    def _pool_of(self, entry_point: str) -> _Pool:
        with self._lock:
            if self._judges.is_closed:
                raise RuntimeError("closed")
            if entry_point not in self._functions:
                command, needs = (
                    entry_point_command(entry_point),
                    f"the entry point {entry_point!r}",
                )
                workers = [Worker(command, needs) for _ in range(self._num_workers)]
                self._functions[entry_point] = _Pool(workers)
            return self._functions[entry_point]

    def _forget(self, entry_point: str) -> None:
        """Names that are not installed must not pile up."""
        with self._lock:
            self._functions.pop(entry_point, None)

    def classes(
        self,
        answers: Sequence[str | None],
        spec: AnswerSpec | AnswerKind,
        *,
        known: Sequence[str] = (),
    ) -> list[str | None]:
        """The representative of each answer's class, aligned with `answers`.

        Equal answers have equal representatives. The representative is the class's most frequent
        key (ties: the smallest), so it does not depend on the order of the answers. None stays
        None, and so does what is no answer of this kind.

        Args:
            answers: as `extract` returned them.
            spec: how they are read; a kind that needs no options may stand for itself.
            known: representatives of an earlier call. A class that equals one of them keeps its
                name, the first where it equals several, which makes the results of two calls
                comparable.

        Raises:
            RuntimeError: it is closed.
            JudgeFailed: a judge process is needed and does not start.
            Defect: our code failed on one of the answers.
        """
        if self._judges.is_closed:
            raise RuntimeError("closed")
        spec = as_spec(spec)
        with defects_named():
            keys = [None if answer is None else canonical(answer, spec) for answer in answers]
            counts = Counter(key for key in keys if key is not None)
            order = sorted(counts, key=lambda key: (-counts[key], key))
            representative = self._cluster([*known, *order], algebra=spec.has_algebra)
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
        with self._judges.borrow() as worker:
            worker.start()  # takes seconds the first time, which are not the answers' fault
            with budget.spend() as seconds:
                answer = worker.equal(first, second, seconds)
        if answer is not None or seconds >= budget.longest_s:
            self._verdicts.put((first, second), bool(answer))
        return bool(answer)


class _Pool:
    """Workers, each lent to one thread at a time."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.is_closed = False
        self._workers = workers
        self._idle: LifoQueue[Worker] = LifoQueue()
        for worker in workers:
            self._idle.put(worker)

    @contextmanager
    def borrow(self) -> Generator[Worker]:
        """An idle worker, waiting for one if need be. Raises RuntimeError if the pool is closed."""
        worker = self._idle.get()
        try:
            if self.is_closed:
                raise RuntimeError("closed")
            yield worker
        finally:
            self._idle.put(worker)

    def start(self) -> None:
        """Start all of them."""
        borrowed = [self._idle.get() for _ in self._workers]
        try:
            for worker in borrowed:
                worker.start()
        finally:
            for worker in borrowed:
                self._idle.put(worker)

    def close(self) -> None:
        """End all of them, after what they are lent for. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        borrowed = [self._idle.get() for _ in self._workers]
        for worker in borrowed:
            worker.close()
            self._idle.put(worker)  # for whoever waits for one, to find out that it is too late


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
