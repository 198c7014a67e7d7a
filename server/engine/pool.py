"""The engines that this process may use, and which of them can serve now."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from types import TracebackType
from typing import Literal

from server.engine.choice import choose
from server.engine.client import EngineClient
from server.engine.turns import Turns
from server.errors import EngineSilent, EngineUnavailable, TTRLError
from server.held import Held

logger = logging.getLogger(__name__)

EngineState = Literal["starting", "ready", "away"]
"""away: put aside, with a reason; starting: answers, but is not reconciled yet; ready: serves."""

RETRY_AFTER_S = 2
SILENCE_S = 10.0  # an engine that serves may leave so long without an answer: it may be busy
STALL_S = 30.0  # having requests and answering none for so long makes an engine suspect


class PutAside(Exception):
    """The engine was put aside before it had answered; another one may be asked."""


@dataclass(eq=False, slots=True)
class Engine:
    """One vLLM server as this process sees it. Times are monotonic seconds."""

    url: str
    client: EngineClient
    turns: Turns
    state: EngineState = "away"
    reason: str | None = "It has not answered yet."  # why it is not ready
    in_flight: int = 0
    loaded: set[str] = field(default_factory=set[str])  # names of adapters
    touched: set[str] = field(default_factory=set[str])  # loaded or unloaded during a look
    picked: int = 0  # serial of the last pick, so that equally idle engines take turns
    seen_at: float = 0.0  # the last look that it answered
    heard_at: float = 0.0  # the last request that it answered
    unanswered: set[asyncio.Timeout] = field(default_factory=set[asyncio.Timeout])

    def busy(self) -> Held:
        """Count a request as in flight."""
        return Held(self.begin, self.end)

    def begin(self) -> None:
        """A request is in flight."""
        if not self.in_flight:
            self.heard_at = monotonic()  # nobody has waited until now
        self.in_flight += 1

    def end(self) -> None:
        """It is not any more."""
        self.in_flight -= 1

    def waiting(self) -> Patience:
        """Wait for an answer in the block, but no longer than others may do better.

        Raises:
            PutAside: the engine was put aside while another one is ready.
        """
        return Patience(self)

    def give_up(self) -> None:
        """End the waiting of all whom the engine has not answered."""
        now = asyncio.get_running_loop().time()
        for patience in self.unanswered:
            if not patience.expired():
                patience.reschedule(now)

    async def load(self, name: str, path: str) -> float:
        """Load an adapter and remember it; milliseconds. Errors as in EngineClient."""
        load_ms = await self.client.load_adapter(name, path)
        self.loaded.add(name)
        self.touched.add(name)
        return load_ms

    async def unload(self, name: str) -> None:
        """Forget an adapter, before the engine does: nobody may start on it meanwhile."""
        self.loaded.discard(name)
        await self.client.unload_adapter(name)
        self.loaded.discard(name)
        self.touched.add(name)

    async def look(self) -> bool:
        """Ask what is loaded; False, with a reason, when the engine does not answer."""
        return await self.trouble() is None

    async def trouble(self) -> TTRLError | None:
        """Look at the engine: what is loaded, or what is wrong with it."""
        self.touched.clear()
        try:
            await self.client.check_health()
            names = set(await self.client.adapters())
        except TTRLError as error:
            return error
        # About what we touched meanwhile we know better than the answer, which may be older.
        self.loaded = (names - self.touched) | (self.loaded & self.touched)
        return None


Reconcile = Callable[[Engine], Awaitable[bool]]
IsAlive = Callable[[Engine], Awaitable[bool]]


class Patience:
    """See `Engine.waiting`. Not a generator: every request goes through it."""

    __slots__ = ("_engine", "_timeout")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._engine.unanswered.add(self._timeout)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._engine.unanswered.discard(self._timeout)
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            if self._timeout.expired():
                raise PutAside from None
            raise
        if kind is None:
            self._engine.heard_at = monotonic()


class EnginePool:
    """Polls its engines, and picks among those that are ready.

    An engine that answers is ready once `reconcile` says so: the adapter registry puts itself
    there. Without one, answering is enough. `is_alive` asks an engine that has requests and answers
    none whether it still generates; one that does not is put aside if there is another.
    `num_slots` is how many adapters an engine gets requests for at once.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        poll_s: float,
        num_slots: int = sys.maxsize,
        silence_s: float = SILENCE_S,
        client_factory: Callable[[str], EngineClient] = EngineClient,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.engines: Sequence[Engine] = [
            Engine(url, client_factory(url), Turns(num_slots)) for url in urls
        ]
        self.reconcile: Reconcile | None = None
        self.is_alive: IsAlive | None = None
        self._poll_s = poll_s
        self._silence_s = silence_s
        self._clock = clock
        self._polls: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._serial = count(1)

    async def start(self) -> None:
        """Begin to poll, each engine on its own: one that hangs does not hide the others."""
        self._polls = [asyncio.create_task(self._poll(engine)) for engine in self.engines]

    async def stop(self) -> None:
        """Stop polling and close the connections."""
        for poll in self._polls:
            poll.cancel()
        await asyncio.gather(*self._polls, return_exceptions=True)
        self._polls = []
        for engine in self.engines:
            await engine.client.close()

    @property
    def ready(self) -> list[Engine]:
        """The engines that can serve."""
        return [engine for engine in self.engines if engine.state == "ready"]

    @property
    def aside(self) -> list[str]:
        """Why engines are not ready; nothing internal is in it."""
        return [
            f"engine {number}: {engine.reason}"
            for number, engine in enumerate(self.engines, 1)
            if engine.state != "ready"
        ]

    def pick(
        self, adapter: str = "", *, affinity: str = "", without: Collection[Engine] = ()
    ) -> Engine:
        """A ready engine: one that has the adapter and is the usual one for `affinity` (a tenant,
        whose prompts it has cached), unless it is busier than the others; without an affinity, the
        one with the fewest requests.

        Raises:
            EngineUnavailable: none is ready, or none but those in `without`.
        """
        ready = [e for e in self.engines if e.state == "ready" and e not in without]
        if not ready:
            raise EngineUnavailable("No engine is ready.", retry_after_s=RETRY_AFTER_S)
        engine = ready[0] if len(ready) == 1 else choose(ready, adapter, affinity)
        engine.picked = next(self._serial)
        return engine

    async def wait_ready(self) -> None:
        """Wait until an engine is ready; bound it with `asyncio.timeout`."""
        while not self.ready:
            self._changed.clear()
            await self._changed.wait()

    def set_state(self, engine: Engine, state: EngineState, reason: str | None = None) -> None:
        """Move an engine; also for those who meet a refused connection before the poll does.

        Requests that wait for the first byte of one that is put aside go to another, if there is
        one; without, waiting is the best that they can do.
        """
        if engine.state != state or engine.reason != reason:
            logger.info("engine %s", state, extra={"url": engine.url, "reason": reason})
        engine.state, engine.reason = state, reason
        self._changed.set()
        if state == "away" and self.ready:
            engine.give_up()

    async def check(self, engine: Engine) -> None:
        """Look at an engine once, and bring it to what the registry wants.

        One that is ready stays so when that fails: what it has can be served.
        """
        before = engine.loaded
        trouble = await engine.trouble()
        if trouble is not None:
            self._note_trouble(engine, trouble)
            return
        engine.seen_at = self._clock()
        has_restarted = bool(before) and before.isdisjoint(engine.loaded)
        if has_restarted or engine.state == "away":
            self.set_state(engine, "starting", engine.reason)
        if self.reconcile is not None and not await self.reconcile(engine):
            return
        if engine.state != "away" and not await self._is_stalled(engine):  # nobody met trouble
            self.set_state(engine, "ready")

    def _note_trouble(self, engine: Engine, trouble: TTRLError) -> None:
        is_silent = isinstance(trouble, EngineSilent)
        silence_s = self._clock() - engine.seen_at
        if is_silent and engine.state == "ready" and silence_s < self._silence_s:
            return
        self.set_state(engine, "away", trouble.message if is_silent else "It cannot be reached.")

    async def _is_stalled(self, engine: Engine) -> bool:
        """Whether a ready engine, which says that it is well, does not generate; it is put aside
        then.
        """
        if self.is_alive is None or engine.state != "ready" or not engine.unanswered:
            return False
        if monotonic() - engine.heard_at < STALL_S or len(self.ready) == 1:
            return False
        if await self.is_alive(engine):
            engine.heard_at = monotonic()
            return False
        self.set_state(engine, "away", "It does not generate any more.")
        return True

    async def _poll(self, engine: Engine) -> None:
        while True:
            try:
                await self.check(engine)
            except Exception:  # this task's outermost loop: an engine must not stay unwatched
                logger.exception("engine check failed", extra={"url": engine.url})
            await asyncio.sleep(self._poll_s)
