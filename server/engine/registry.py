"""Which adapters each engine holds, brought to what the tenants' pointers say.

A name means the same weights for ever, so loading is never in place: a new version is a new name.
The rules: the live versions are loaded before an engine is called ready; a version that cannot be
loaded fails alone; a superseded version is unloaded when nobody uses it any more and `keep_s` has
passed. No more versions are loaded than fit into an engine's host memory: the one that was used
last the longest ago goes first, and is loaded again when it is asked for. Training steps
(`--c<cycle>-s<step>`) belong to the worker and are left alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from weakref import WeakValueDictionary

from server.db.failures import SQLAlchemyError
from server.engine.integrity import Verify, VersionLike, is_published
from server.engine.pool import Engine, EnginePool
from server.engine.probe import ModelProbe
from server.errors import EngineFailed, EngineSilent, EngineUnavailable, TTRLError
from server.held import Held

logger = logging.getLogger(__name__)

RETRY_FAILED_S = 10.0
LOAD_TIMEOUT_S = 30.0
READ_TIMEOUT_S = 2.0  # of what is wanted: a database that hangs must not hold up the polls
UNKNOWN_WANTED = "The database has not told yet which versions are wanted."


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """Why an engine could not load a version; it is tried again after a while."""

    url: str
    engine_name: str
    reason: str
    at: float  # monotonic seconds


class AdapterRegistry:
    """Reconciles engines with the wanted versions, and loads others on demand.

    `wanted` gives the identity adapter and the live versions of all tenants, most important first.
    `max_adapters` bounds the published versions that an engine has at once. An engine that takes
    longer than `load_timeout_s` to load one is put aside. Where `wanted` fails, or takes longer
    than `read_timeout_s`, engines go on with what it gave last. `verify` looks at a published
    version's files before an engine does, `probe` at the base model of an engine that wants to be
    ready.
    """

    def __init__(
        self,
        pool: EnginePool,
        *,
        wanted: Callable[[], Awaitable[Sequence[VersionLike]]],
        keep_s: float = 60.0,
        max_adapters: int = 32,
        load_timeout_s: float = LOAD_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        verify: Verify | None = None,
        probe: ModelProbe | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._pool = pool
        self._read_wanted = wanted
        self._keep_s = keep_s
        self._max_adapters = max_adapters
        self._load_timeout_s = load_timeout_s
        self._read_timeout_s = read_timeout_s
        self._verify = verify
        self._probe = probe
        self._clock = clock
        self._wanted: list[VersionLike] = []
        self._reading: asyncio.Task[None] | None = None  # of what is wanted, for all engines
        self._is_in_the_dark = False  # what is wanted now cannot be read
        self._leases: Counter[str] = Counter()
        self._idle_since: dict[str, float] = {}  # of names that are loaded but not wanted
        self._used_at: dict[str, float] = {}  # of names that are loaded or wanted
        self._failures: dict[tuple[str, str], LoadFailure] = {}
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def start(self) -> None:
        """Let the pool reconcile every engine at each poll."""
        self._pool.reconcile = self.reconcile
        if self._probe is not None:
            self._pool.is_alive = self._is_alive

    async def stop(self) -> None:
        """Leave the engines as they are."""
        self._pool.reconcile = self._pool.is_alive = None
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,), timeout=self._read_timeout_s)

    @property
    def failures(self) -> list[LoadFailure]:
        """The versions that cannot be loaded at the moment."""
        return list(self._failures.values())

    def lease(self, version: VersionLike) -> Held:
        """Keep a version loaded while a request uses it: take it before `ensure`."""
        name = version.engine_name
        return Held(partial(self._lease, name), partial(self._end_lease, name))

    def _lease(self, name: str) -> None:
        self._leases[name] += 1
        self._used_at[name] = self._clock()

    def _end_lease(self, name: str) -> None:
        self._leases[name] -= 1
        if not self._leases[name]:
            del self._leases[name]
        if name in self._idle_since:
            self._idle_since[name] = self._clock()

    def forget(self, version: VersionLike, engine: Engine) -> None:
        """The engine said that it does not know this version: `ensure` will load it again."""
        engine.loaded.discard(version.engine_name)

    async def ensure(self, version: VersionLike, engine: Engine) -> None:
        """Have a version loaded on an engine; free when it is there.

        Raises:
            EngineUnavailable: it cannot be loaded now, or too many others are in use.
        """
        name = version.engine_name
        if name in engine.loaded:
            return
        async with self._lock(engine, name):
            if name in engine.loaded:
                return
            if self._failed_lately(engine, name):
                raise _unavailable(version)
            await self._make_room(engine, name)
            try:
                await self._load(version, engine)
            except EngineFailed as error:
                raise _unavailable(version) from error

    async def load_everywhere(self, version: VersionLike) -> float:
        """Load a version on every ready engine; milliseconds until the last one has it.

        An engine that goes away meanwhile gets the version when it comes back. The files are
        looked at even when it is loaded everywhere: an engine may read them again at any time.

        Raises:
            EngineUnavailable: no engine has it now.
            AdapterDamaged: the files are not what was published.
            EngineFailed: an engine refuses the files.
        """
        started = self._clock()
        await self._check_files(version)
        engines = self._pool.ready
        results = await asyncio.gather(
            *(self._load_once(version, engine, checked=True) for engine in engines),
            return_exceptions=True,
        )
        errors = [result for result in results if result is not None]
        for error in errors:
            if not isinstance(error, EngineUnavailable):
                raise error
        if len(errors) == len(engines):
            raise EngineUnavailable(f"No engine could load {version.label}.")
        return (self._clock() - started) * 1e3

    async def reconcile(self, engine: Engine) -> bool:
        """Load what is wanted, unload what is not; whether the engine may serve."""
        wanted = await self._current_wanted()
        if not wanted:  # the identity adapter always is, once it is known
            self._pool.set_state(engine, "starting", UNKNOWN_WANTED)
            return False
        for name in engine.loaded:  # perhaps by a worker, for a swap that comes
            self._used_at.setdefault(name, self._clock())
        if engine.state != "ready":  # a new process may do what the old one failed at
            self._failures = {k: v for k, v in self._failures.items() if v.url != engine.url}
        try:
            for version in self._ahead(engine, wanted):
                await self._bring(version, engine)
            await self._unload_superseded(engine, {v.engine_name for v in wanted})
            await self._trim(engine)
        except EngineUnavailable:
            return False
        return engine.state == "ready" or await self._is_the_model(engine, wanted)

    def _ahead(self, engine: Engine, wanted: Sequence[VersionLike]) -> list[VersionLike]:
        """What to load ahead of its first request: as many as there is room for, those that were
        used last before the others.
        """
        missing = [version for version in wanted if version.engine_name not in engine.loaded]
        published = [v for v in missing if is_published(v.engine_name)]
        published.sort(key=lambda v: self._used_at.get(v.engine_name, 0.0), reverse=True)
        room = max(0, self._max_adapters - len(_published(engine)))
        others = [v for v in missing if not is_published(v.engine_name)]
        return [*others, *published[:room]]

    async def _is_the_model(self, engine: Engine, wanted: Sequence[VersionLike]) -> bool:
        if self._probe is None or not wanted or wanted[0].engine_name not in engine.loaded:
            return True

        def others_are_ready() -> bool:
            return any(other is not engine for other in self._pool.ready)

        name = wanted[0].engine_name
        fault = await self._probe.fault(engine, name, others_are_ready=others_are_ready)
        if fault is not None:
            self._pool.set_state(engine, "away", fault)
        return fault is None

    async def _is_alive(self, engine: Engine) -> bool:
        assert self._probe is not None
        names = [version.engine_name for version in self._wanted[:1]]
        return all([await self._probe.generates(engine, name) for name in names])

    async def _current_wanted(self) -> list[VersionLike]:
        reading = self._reading
        if reading is None:
            reading = self._reading = asyncio.create_task(self._read(), name="wanted")
        # Not a time-out around it: a driver that hangs may not obey a cancellation either.
        await asyncio.wait((reading,), timeout=self._read_timeout_s)
        if reading.done():
            reading.result()  # whatever is not expected belongs into the poll's log
        else:
            self._note_darkness(TimeoutError())
        return self._wanted

    async def _read(self) -> None:
        try:
            self._wanted = list(await self._read_wanted())
        except (SQLAlchemyError, TTRLError, OSError) as error:
            self._note_darkness(error)
        else:
            self._is_in_the_dark = False
        finally:
            self._reading = None

    def _note_darkness(self, error: Exception) -> None:
        """With the database away, engines go on with what was wanted last."""
        if not self._is_in_the_dark:
            logger.warning("wanted versions unknown", extra={"error": type(error).__name__})
        self._is_in_the_dark = True

    async def _bring(self, version: VersionLike, engine: Engine) -> None:
        name = version.engine_name
        if name in engine.loaded or self._failed_lately(engine, name):
            return
        try:
            await self._load_once(version, engine)
        except EngineFailed as error:  # this tenant's trouble, not the others'
            logger.error("adapter failed", extra={"adapter": name, "error": error.message})

    def _failed_lately(self, engine: Engine, name: str) -> bool:
        failure = self._failures.get((engine.url, name))
        return failure is not None and self._clock() - failure.at < RETRY_FAILED_S

    async def _load_once(
        self, version: VersionLike, engine: Engine, *, checked: bool = False
    ) -> None:
        async with self._lock(engine, version.engine_name):
            if version.engine_name not in engine.loaded:
                await self._load(version, engine, checked=checked)

    async def _load(self, version: VersionLike, engine: Engine, *, checked: bool = False) -> None:
        name = version.engine_name
        try:
            if not checked:
                await self._check_files(version)
            async with asyncio.timeout(self._load_timeout_s):
                load_ms = await engine.load(name, version.path)
        except EngineFailed as error:
            failure = LoadFailure(engine.url, name, error.message, self._clock())
            self._failures[engine.url, name] = failure
            raise
        except (TimeoutError, EngineSilent) as error:
            # Loading stands between two steps of the engine: it does nothing else meanwhile.
            reason = "It did not load an adapter in time."
            self._pool.set_state(engine, "away", reason)
            raise EngineSilent(reason) from error
        self._failures.pop((engine.url, name), None)
        self._used_at[name] = self._clock()
        logger.info("adapter loaded", extra={"adapter": name, "url": engine.url, "ms": load_ms})

    async def _check_files(self, version: VersionLike) -> None:
        if self._verify is not None and is_published(version.engine_name):
            await self._verify(version)

    async def _unload_superseded(self, engine: Engine, wanted: set[str]) -> None:
        now = self._clock()
        for name in wanted & self._idle_since.keys():
            del self._idle_since[name]
        for name in _published(engine) - wanted:
            since = self._idle_since.setdefault(name, now)
            if now - since >= self._keep_s:
                await self._unload(engine, name)
        everywhere = {name for e in self._pool.engines for name in e.loaded}
        for name in self._idle_since.keys() - everywhere:
            del self._idle_since[name]
        for name in self._used_at.keys() - everywhere - wanted - self._leases.keys():
            del self._used_at[name]

    async def _unload(self, engine: Engine, name: str) -> None:
        """Unload a superseded version, unless somebody uses it."""
        async with self._lock(engine, name):
            if self._leases[name]:
                return
            await self._unload_now(engine, name)

    async def _unload_now(self, engine: Engine, name: str) -> None:
        await engine.unload(name)
        logger.info("adapter unloaded", extra={"adapter": name, "url": engine.url})

    async def _make_room(self, engine: Engine, name: str) -> None:
        """Have room for one more published version on an engine.

        Raises:
            EngineUnavailable: all that are there are in use.
        """
        if not is_published(name):
            return
        if name not in {version.engine_name for version in self._wanted}:
            self._idle_since.setdefault(name, self._clock())
        if not await self._trim(engine, num_more=1):
            raise EngineUnavailable("Too many adapter versions are in use.")

    async def _trim(self, engine: Engine, *, num_more: int = 0) -> bool:
        """Unload what was used last the longest ago until `num_more` fit in; whether they do.

        Requests that only wait for their turn do not keep a version: it is loaded for them again.
        """
        names = sorted(_published(engine), key=lambda name: self._used_at.get(name, 0.0))
        excess = len(names) + num_more - self._max_adapters
        for name in names:
            if excess <= 0:
                break
            lock = self._lock(engine, name)
            if lock.locked() or engine.turns.is_used(name):
                continue  # a lock is not waited for: its holder may be making room itself
            async with lock:
                await self._unload_now(engine, name)
            excess -= 1
        return excess <= 0

    def _lock(self, engine: Engine, name: str) -> asyncio.Lock:
        lock = self._locks.get((engine.url, name))
        if lock is None:
            lock = self._locks[engine.url, name] = asyncio.Lock()
        return lock


def _published(engine: Engine) -> set[str]:
    """The published versions that an engine has."""
    return {name for name in engine.loaded if is_published(name)}


def _unavailable(version: VersionLike) -> EngineUnavailable:
    return EngineUnavailable(f"{version.label} cannot be loaded now.", retry_after_s=10)
