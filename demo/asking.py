"""Asking one question with the real `openai` client, and what came of it.

Nothing is raised when a request goes wrong: the demo counts what its users would have met.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from openai import AsyncOpenAI, OpenAIError, omit
from openai.types.chat import ChatCompletionUserMessageParam

from demo.plan import MAX_TOKENS, REQUEST_TIMEOUT_S, SERVED_MODEL

ADAPTER_HEADER = "x-ttrl-adapter"
MAX_PROBLEM_CHARS = 300


@dataclass(frozen=True, slots=True)
class Answered:
    """What the endpoint answered: one text a sample."""

    request_id: str | None
    adapter: str | None  # the header, such as adder--v3
    texts: tuple[str, ...]
    fingerprints: frozenset[str | None]  # `system_fingerprint` of the response or of its chunks
    finish_reasons: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request of a tenant with its response; times are UTC of this machine's clock."""

    tenant: str
    started_at: datetime
    ended_at: datetime
    streamed: bool
    stored: bool  # False: asked with `store=False`
    request_id: str | None
    adapter: str | None
    texts: tuple[str, ...]
    problem: str | None  # None: answered in full


class Asker:
    """One tenant's user. It never retries, so that no failure stays unseen."""

    def __init__(self, tenant: str, client: AsyncOpenAI) -> None:
        self.tenant = tenant
        self._client = client

    @classmethod
    def at(cls, base_url: str, tenant: str, api_key: str) -> Asker:
        """A user of the endpoint at `base_url` (which ends in /v1)."""
        client = AsyncOpenAI(
            base_url=base_url, api_key=api_key, max_retries=0, timeout=REQUEST_TIMEOUT_S
        )
        return cls(tenant, client)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(
        self, question: str, *, samples: int = 1, stream: bool = False, store: bool = True
    ) -> Exchange:
        """Ask at temperature 1 and check the response."""
        started_at = datetime.now(UTC)
        answered, problem = None, None
        try:
            asked = self._streamed if stream else self._whole
            answered = await asked(question, samples, store)
            problem = problem_of(answered, samples)
        except (OpenAIError, ValueError) as error:  # ValueError: the body is not JSON
            problem = f"{type(error).__name__}: {error}"[:MAX_PROBLEM_CHARS]
        return Exchange(
            tenant=self.tenant,
            started_at=started_at,
            ended_at=datetime.now(UTC),
            streamed=stream,
            stored=store,
            request_id=answered.request_id if answered else None,
            adapter=answered.adapter if answered else None,
            texts=answered.texts if answered else (),
            problem=problem,
        )

    async def _whole(self, question: str, samples: int, store: bool) -> Answered:
        raw = await self._client.chat.completions.with_raw_response.create(
            model=SERVED_MODEL,
            messages=_messages(question),
            n=samples,
            max_tokens=MAX_TOKENS,
            temperature=1.0,
            store=omit if store else False,
        )
        completion = raw.parse()
        return Answered(
            request_id=completion.id,
            adapter=raw.headers.get(ADAPTER_HEADER),
            texts=tuple(choice.message.content or "" for choice in completion.choices),
            fingerprints=frozenset({completion.system_fingerprint}),
            finish_reasons=tuple(choice.finish_reason for choice in completion.choices),
        )

    async def _streamed(self, question: str, samples: int, store: bool) -> Answered:
        stream = await self._client.chat.completions.create(
            model=SERVED_MODEL,
            messages=_messages(question),
            n=samples,
            max_tokens=MAX_TOKENS,
            temperature=1.0,
            store=omit if store else False,
            stream=True,
        )
        request_id: str | None = None
        fingerprints: set[str | None] = set()
        texts: dict[int, str] = {}
        finish_reasons: dict[int, str] = {}
        async with stream:
            async for chunk in stream:
                request_id = chunk.id
                fingerprints.add(chunk.system_fingerprint)
                for choice in chunk.choices:
                    texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
                    if choice.finish_reason is not None:
                        finish_reasons[choice.index] = choice.finish_reason
        return Answered(
            request_id=request_id,
            adapter=stream.response.headers.get(ADAPTER_HEADER),
            texts=_in_order(texts),
            fingerprints=frozenset(fingerprints),
            finish_reasons=tuple(finish_reasons.get(index) for index in sorted(texts)),
        )


def problem_of(answered: Answered, samples: int) -> str | None:
    """What is wrong with a response that came with status 200; None if nothing is."""
    if len(answered.texts) != samples:
        return f"{len(answered.texts)} answers instead of {samples}"
    if not all(answered.texts):
        return "an empty answer"
    if None in answered.finish_reasons:
        return "an answer without a finish_reason"
    if answered.request_id is None:
        return "no id"
    if answered.adapter is None:
        return "no X-TTRL-Adapter header"
    if answered.fingerprints != frozenset[str | None]({answered.adapter}):
        named = sorted(str(fingerprint) for fingerprint in answered.fingerprints)
        return f"header {answered.adapter}, but system_fingerprint {', '.join(named)}"
    return None


def _messages(question: str) -> list[ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": question}]


def _in_order(texts: Mapping[int, str]) -> tuple[str, ...]:
    return tuple(texts[index] for index in sorted(texts))
