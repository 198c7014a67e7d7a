"""The engines that this process may use, and which of them can serve now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from server.engine.client import EngineClient
from server.errors import EngineUnavailable, TTRLError

logger = logging.getLogger(__name__)

EngineState = Literal["starting", "ready", "away"]
"""away: does not answer; starting: answers, but adapters are missing; ready: serves."""

RETRY_AFTER_S = 2


@dataclass(eq=False, slots=True)
class Engine:
    """One vLLM server as this process sees it."""

    url: str
    client: EngineClient
    state: EngineState = "away"
    in_flight: int = 0
    loaded: set[str] = field(default_factory=set[str])  # names of adapters
    touched: set[str] = field(default_factory=set[str])  # loaded or unloaded during a look
    picked: int = 0  # serial of the last pick, so that equally idle engines take turns

    @contextmanager
    def busy(self) -> Generator[Engine]:
        """Count a request as in flight."""
        self.in_flight += 1
        try:
            yield self
        finally:
            self.in_flight -= 1

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
        """Ask what is loaded; False when the engine does not answer."""
        self.touched.clear()
        try:
            if not await self.client.healthy():
                return False
            names = set(await self.client.adapters())
        except TTRLError:
            return False
        # About what we touched meanwhile we know better than the answer, which may be older.
        self.loaded = (names - self.touched) | (self.loaded & self.touched)
        return True


Reconcile = Callable[[Engine], Awaitable[bool]]


class EnginePool:
    """Polls its engines, and picks the least busy of those that are ready.

    An engine that answers is ready once `reconcile` says so: the adapter registry puts itself
    there. Without one, answering is enough.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        poll_s: float,
        client_factory: Callable[[str], EngineClient] = EngineClient,
    ) -> None:
        self.engines: Sequence[Engine] = [Engine(url, client_factory(url)) for url in urls]
        self.reconcile: Reconcile | None = None
        self._poll_s = poll_s
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

    def pick(self) -> Engine:
        """The ready engine with the fewest requests in flight.

        Raises:
            EngineUnavailable: none is ready.
        """
        ready = self.ready
        if not ready:
            raise EngineUnavailable("No engine is ready.", retry_after_s=RETRY_AFTER_S)
        engine = min(ready, key=lambda e: (e.in_flight, e.picked))
        engine.picked = next(self._serial)
        return engine

    async def wait_ready(self) -> None:
        """Wait until an engine is ready; bound it with `asyncio.timeout`."""
        while not self.ready:
            self._changed.clear()
            await self._changed.wait()

    def set_state(self, engine: Engine, state: EngineState) -> None:
        """Move an engine; also for those who meet a refused connection before the poll does."""
        if engine.state != state:
            logger.info("engine %s", state, extra={"url": engine.url})
        engine.state = state
        self._changed.set()

    async def check(self, engine: Engine) -> None:
        """Look at an engine once, and bring it to what the registry wants.

        One that is ready stays so when that fails: what it has can be served.
        """
        before = engine.loaded
        if not await engine.look():
            self.set_state(engine, "away")
            return
        has_restarted = bool(before) and before.isdisjoint(engine.loaded)
        if has_restarted or engine.state == "away":
            self.set_state(engine, "starting")
        if self.reconcile is None or await self.reconcile(engine):
            self.set_state(engine, "ready")

    async def _poll(self, engine: Engine) -> None:
        while True:
            try:
                await self.check(engine)
            except Exception:  # this task's outermost loop: an engine must not stay unwatched
                logger.exception("engine check failed", extra={"url": engine.url})
            await asyncio.sleep(self._poll_s)
