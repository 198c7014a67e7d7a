"""Whether an engine generates, and from the model that the other engines serve.

An engine's health route says that its HTTP side lives; a wedged one answers it. And two engines on
different models would give a tenant answers of either, without any sign of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from server.engine.client import Completion
from server.engine.pool import Engine
from server.errors import TTRLError

QUESTION = "What is 17 + 25? Say why."
NUM_TOKENS = 8
MAX_DIFFERENCE = 0.2  # nats a token; precisions and kernels differ by less, models by more
TIMEOUT_S = 15.0
USERS_PRIORITY = 0


@dataclass(frozen=True, slots=True)
class Likeness:
    """What tells a model from others: its tokens of a question, and how it goes on."""

    url: str
    prompt_ids: list[int]
    answer: Completion

    def differs_from(self, other: Likeness) -> bool:
        """Whether the two cannot be of one model. Near ties may be broken either way."""
        if self.prompt_ids != other.prompt_ids:
            return True
        pairs = zip(self.answer.token_ids, other.answer.token_ids, strict=False)
        logprobs = zip(self.answer.logprobs, other.answer.logprobs, strict=False)
        for (token, others_token), (logprob, others_logprob) in zip(pairs, logprobs, strict=False):
            if abs(logprob - others_logprob) > MAX_DIFFERENCE:
                return True
            if token != others_token:
                return False
        return False


class ModelProbe:
    """Compares engines with the first that became ready while none was."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._reference: Likeness | None = None

    async def fault(
        self, engine: Engine, adapter: str, *, others_are_ready: Callable[[], bool]
    ) -> str | None:
        """Why the engine must not serve: it does not generate, or serves another model than the
        others; None if it may, and then it must be ready before anything else is waited for.
        `adapter` changes nothing.
        """
        likeness = await self._likeness(engine, adapter)
        if likeness is None:
            return "It does not generate."
        compare = others_are_ready()  # now: engines that start together are probed together
        if compare and self._reference is not None and likeness.differs_from(self._reference):
            return "Its model is not the one that the other engines serve."
        if not compare or self._reference is None:
            self._reference = likeness
        return None

    async def generates(self, engine: Engine, adapter: str) -> bool:
        """Whether the engine answers a small request in time."""
        return await self._likeness(engine, adapter) is not None

    async def _likeness(self, engine: Engine, adapter: str) -> Likeness | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                prompt_ids = await engine.client.tokenize([{"role": "user", "content": QUESTION}])
                (answer,) = await engine.client.sample(
                    model=adapter,
                    prompt_ids=prompt_ids,
                    n=1,
                    max_tokens=NUM_TOKENS,
                    temperature=0.0,
                    seed=None,
                    priority=USERS_PRIORITY,
                    cache_salt="probe",
                )
        except (TTRLError, TimeoutError):
            return None
        return Likeness(engine.url, prompt_ids, answer)
