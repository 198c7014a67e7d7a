"""Samples from named adapters through engine trouble: waits while the engine is away, goes to
another one when it hangs, and brings an adapter back where it is missing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

import structlog

from server.adaptation.tokens import TokenCache
from server.engine.client import Completion
from server.engine.integrity import Verify, is_published
from server.engine.pool import Engine, EnginePool, PutAside
from server.errors import EngineSilent, EngineUnavailable, TTRLError, UnknownModel

logger = structlog.get_logger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 3.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Policy:
    """Weights as an engine knows them: a name that is theirs for ever, and where they lie."""

    engine_name: str
    path: str

    @property
    def label(self) -> str:
        """What errors call it."""
        return self.engine_name


@dataclass(frozen=True, slots=True)
class Draw:
    """How completions are drawn; sample i of a request is drawn with `seed + i`."""

    n: int
    max_tokens: int
    temperature: float
    seed: int
    cache_salt: str


class Sampler:
    """Gives up when no engine answers for `patience_s` after the first that did not. `verify` looks
    at a published version's files before an engine does: users are served what is loaded under its
    name.
    """

    def __init__(
        self, pool: EnginePool, *, patience_s: float, verify: Verify | None = None
    ) -> None:
        self._pool = pool
        self._patience_s = patience_s
        self._verify = verify
        self._loading: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tokens = TokenCache()

    async def sample(
        self, policy: Policy, prompt_ids: Sequence[int], draw: Draw
    ) -> list[Completion]:
        """Completions of a token prompt, from these weights and no others.

        Raises:
            EngineUnavailable: no engine came back in time.
            BadRequest: the engine refuses the prompt, for example because it is too long.
            AdapterDamaged: the files are not what was published.
        """

        async def ask(engine: Engine) -> list[Completion]:
            try:
                return await self._draw(engine, policy, prompt_ids, draw)
            except UnknownModel:
                engine.loaded.discard(policy.engine_name)
                await self._bring(engine, policy)
            try:
                return await self._draw(engine, policy, prompt_ids, draw)
            except UnknownModel as error:
                raise EngineUnavailable("The engine does not keep the adapter.") from error

        return await self._ask_an_engine(ask)

    async def _draw(
        self, engine: Engine, policy: Policy, prompt_ids: Sequence[int], draw: Draw
    ) -> list[Completion]:
        try:
            with engine.busy():
                async with engine.waiting():
                    return await engine.client.sample(
                        model=policy.engine_name,
                        prompt_ids=prompt_ids,
                        n=draw.n,
                        max_tokens=draw.max_tokens,
                        temperature=draw.temperature,
                        seed=draw.seed,
                        cache_salt=draw.cache_salt,
                    )
        except PutAside:
            raise EngineSilent("The engine was put aside before it answered.") from None

    async def load(self, policy: Policy) -> float:
        """Load the weights ahead of their first request; milliseconds.

        Raises:
            EngineUnavailable: no engine came back in time.
            EngineFailed: the engine refuses the files.
            AdapterDamaged: they are not what was published.
        """
        return await self._ask_an_engine(lambda engine: self._bring(engine, policy))

    async def _bring(self, engine: Engine, policy: Policy) -> float:
        async with self._loading[engine.url, policy.engine_name]:
            if policy.engine_name in engine.loaded:
                return 0.0
            if self._verify is not None and is_published(policy.engine_name):
                await self._verify(policy)
            return await engine.load(policy.engine_name, policy.path)

    async def tokenize(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Token ids of a chat, by the engine's own template."""
        if (known := self._tokens.get(messages)) is not None:
            return known
        found = await self._ask_an_engine(lambda engine: engine.client.tokenize(messages))
        self._tokens.put(messages, found)
        return found

    def forget_chats(self) -> None:
        """Ask the engines for token ids again: a template may have a date in it."""
        self._tokens = TokenCache()

    async def wait_ready(self, timeout_s: float) -> bool:
        """Wait until an engine is ready, but no longer than this; whether one is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._pool.wait_ready()
                return True
        return False

    async def unload(self, is_done_with: Callable[[str], bool]) -> None:
        """Forget every adapter whose name is done with, wherever it is loaded.

        An engine that is away forgets by itself, so trouble is logged and passed over.
        """
        for engine in self._pool.ready:
            try:
                for name in [n for n in await engine.client.adapters() if is_done_with(n)]:
                    await engine.unload(name)
                    self._loading.pop((engine.url, name), None)
            except TTRLError as error:
                logger.warning("adapters not unloaded", url=engine.url, error=error.message)

    async def forget(self, name: str) -> None:
        """Forget one adapter, wherever it is loaded; trouble as for `unload`."""
        await self.unload(lambda loaded: loaded == name)

    async def _ask_an_engine(self, ask: Callable[[Engine], Awaitable[T]]) -> T:
        """What `ask` returns, of an engine that has not kept it waiting, where there is one."""
        silent: set[Engine] = set()

        async def attempt() -> T:
            if silent.issuperset(self._pool.ready):
                silent.clear()
            engine = self._pool.pick(without=silent)
            try:
                return await ask(engine)
            except EngineSilent:
                silent.add(engine)
                raise

        return await self.patiently(attempt)

    async def patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` returns, asked again while the engine is away, once at least.

        Raises:
            EngineUnavailable: it stayed away.
        """
        give_up: float | None = None
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await ask()
            except EngineUnavailable as error:
                if give_up is None:  # not before: one answer may take longer than the patience
                    give_up = monotonic() + self._patience_s
                    logger.info("engine away, waiting", error=error.message)
                elif monotonic() > give_up:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def all_of(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order; the first error is raised as it is, after the rest has been cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
