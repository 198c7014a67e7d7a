"""Draws a request's answers from an engine: a wave is one request for several, streamed, so that
each is known as soon as it ends, and its tokens are counted even if it is cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from server.db.log import LoggedAnswer
from server.errors import EngineFailed, EngineUnavailable
from server.gateway.call import Call
from server.gateway.engine_errors import engine_error
from server.gateway.relay import WENT_AWAY, drain
from server.gateway.sse import DONE, EventSplitter, payload
from server.gateway.transcript import (
    Choice,
    CompletionDetails,
    Number,
    PromptDetails,
    Usage,
    read_chunk,
)

MAX_REDRAWS: Final = 2  # engines that may die under one vote
TOKENS_PER_EVENT: Final = 8  # nobody reads along, so events need not be small


class _Logprobs(msgspec.Struct):
    content: list[msgspec.Raw] | None = None


class _ChoiceWithLogprobs(msgspec.Struct):
    index: Number = 0
    logprobs: _Logprobs | None = None


class _ChunkWithLogprobs(msgspec.Struct):
    choices: list[_ChoiceWithLogprobs] = []


_LOGPROBS = msgspec.json.Decoder(_ChunkWithLogprobs)


@dataclass(slots=True)
class Sample:
    """What the transcript does not know of an answer. `logprobs` are OpenAI's objects."""

    tokens: int = 0
    reasoning_tokens: int | None = None
    stop_reason: str | int | None = None
    logprobs: list[msgspec.Raw] = field(default_factory=list[msgspec.Raw])


@dataclass(slots=True)
class _Draw:
    """One request to an engine: which samples it draws, and its token counts when they are told."""

    samples: list[Sample]
    first: int
    usage: Usage | None = None


class EngineSampler:
    """The samples of one call. They also go into the call's transcript, as its choices."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._draws: list[_Draw] = []
        self._with_logprobs = bool(call.asked.upstream.get("logprobs"))
        self._ended: list[int] = []
        self._usage = Usage()

    @property
    def samples(self) -> list[Sample]:
        """All that were begun, by their choice in the transcript."""
        return [sample for draw in self._draws for sample in draw.samples]

    async def draw(self, size: int) -> AsyncGenerator[Sequence[LoggedAnswer]]:
        """See `Sampler.draw`. Where an engine dies, what it owed is drawn again elsewhere."""
        owed, redraws = size, 0
        while owed > 0:
            begun = len(self._draws)
            try:
                async with aclosing(self._draw(owed)) as batches:
                    async for batch in batches:
                        owed -= len(batch)
                        yield batch
                if owed > 0:
                    raise EngineFailed("The engine answered less than it was asked.")
            except EngineUnavailable:
                redraws += 1  # before an engine has begun, `Upstream` tries the others itself
                if redraws > MAX_REDRAWS or len(self._draws) == begun:
                    raise

    async def _draw(self, size: int) -> AsyncGenerator[Sequence[LoggedAnswer]]:
        changes = self._changes(size)
        draw = _Draw([], len(self.samples))
        async with self._call.open(changes, suffix=f"-{len(self._draws)}") as response:
            draw.samples += [Sample() for _ in range(size)]
            self._draws.append(draw)
            try:
                async with aclosing(self._read(response.pieces(), draw)) as batches:
                    async for batch in batches:
                        yield batch
                await drain(response)
            finally:
                self._call.transcript.usage = self.usage()

    def _changes(self, size: int) -> dict[str, Any]:
        """What the engine gets instead of the client's fields. Sample k of all has the client's
        seed + k, however they are drawn.
        """
        changes: dict[str, Any] = {
            "n": size,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "stream_interval": TOKENS_PER_EVENT,
        }
        seed = self._call.asked.upstream.get("seed")
        if seed is not None:
            changes["seed"] = seed + len(self.samples)
        return changes

    async def _read(
        self, content: AsyncIterable[bytes], draw: _Draw
    ) -> AsyncGenerator[Sequence[LoggedAnswer]]:
        splitter = EventSplitter()
        async for data in content:
            self._ended.clear()
            is_done = self._take(splitter.feed(data), draw)
            if self._ended:
                yield [self._call.transcript.answer(choice) for choice in self._ended]
            if is_done:
                return
        raise EngineUnavailable(WENT_AWAY)

    def _take(self, events: list[bytes], draw: _Draw) -> bool:
        """Take in events; True when `[DONE]` is among them."""
        for event in events:
            data = payload(event)
            if data == DONE:
                return True
            if data is not None:
                self._take_data(data, draw)
        return False

    def _take_data(self, data: bytes, draw: _Draw) -> None:
        chunk = read_chunk(data)
        if chunk.error is not None:
            version = self._call.version
            raise engine_error(500, data, hidden={version.engine_name: version.label})
        if not chunk.choices:
            draw.usage = chunk.usage or draw.usage
        for choice in chunk.choices:
            if not 0 <= choice.index < len(draw.samples):
                raise EngineFailed("The engine answers more than it was asked.")
            self._take_choice(choice, chunk.usage, draw)
        if self._with_logprobs:
            _take_logprobs(data, draw)
        chunk.usage = None  # of one answer; the call's is the sum
        self._call.transcript.add(chunk)

    def _take_choice(self, choice: Choice, usage: Usage | None, draw: _Draw) -> None:
        sample = draw.samples[choice.index]
        if usage is not None:  # of this choice alone, so far
            sample.tokens = usage.completion_tokens or sample.tokens
            details = usage.completion_tokens_details
            if details is not None:
                sample.reasoning_tokens = details.reasoning_tokens
            self._usage.prompt_tokens = usage.prompt_tokens
        sample.stop_reason = choice.stop_reason or sample.stop_reason
        choice.index += draw.first
        if choice.finish_reason is not None:
            self._ended.append(choice.index)

    def usage(self) -> Usage:
        """The tokens of all samples, cancelled ones as far as they came; the prompt's once."""
        prompt = self._usage.prompt_tokens
        cached: PromptDetails | None = None
        for draw in self._draws:
            if draw.usage is not None:
                prompt = draw.usage.prompt_tokens
                cached = cached or draw.usage.prompt_tokens_details
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=sum(map(_num_tokens, self._draws)),
            prompt_tokens_details=cached,
            completion_tokens_details=self._reasoning(),
        )

    def _reasoning(self) -> CompletionDetails | None:
        counts = [s.reasoning_tokens for s in self.samples if s.reasoning_tokens is not None]
        return CompletionDetails(sum(counts)) if counts else None


def _num_tokens(draw: _Draw) -> int:
    """The engine's own sum; without it, that of what was told by sample."""
    if draw.usage is not None and draw.usage.completion_tokens is not None:
        return draw.usage.completion_tokens
    return sum(sample.tokens for sample in draw.samples)


def _take_logprobs(data: bytes, draw: _Draw) -> None:
    try:
        choices = _LOGPROBS.decode(data).choices
    except msgspec.MsgspecError:
        raise EngineFailed("The engine's log-probabilities cannot be read.") from None
    for choice in choices:
        if choice.logprobs is not None:
            draw.samples[choice.index].logprobs += choice.logprobs.content or []
