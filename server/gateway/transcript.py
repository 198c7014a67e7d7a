"""What an engine answered, as far as the log wants to know it: texts, tool calls, usage."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import msgspec

from server.db.log import LoggedAnswer
from server.errors import EngineFailed

logger = logging.getLogger(__name__)

# What an engine counts; what is beyond it could not be stored.
Number = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class CalledFunction(TypedDict, total=False):
    """What of a called function is in a chunk; `arguments` is JSON text."""

    name: str | None
    arguments: str | None


class CallPiece(TypedDict, total=False):
    """A tool call, or the piece of one that a chunk adds."""

    index: Number | None
    id: str | None
    type: str | None
    function: CalledFunction | None


class Delta(msgspec.Struct):
    """A message, or the piece of one that a chunk adds."""

    content: str | None = None
    tool_calls: list[CallPiece] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None  # the same, as older engines call it

    @property
    def thought(self) -> str | None:
        """The reasoning, under whichever name it came."""
        return self.reasoning or self.reasoning_content


class Choice(msgspec.Struct):
    """A choice of any route, whole or a piece: `text` on completions, else a message or delta."""

    index: Number = 0
    text: str | None = None
    message: Delta | None = None
    delta: Delta | None = None
    finish_reason: str | None = None
    stop_reason: str | Number | None = None  # vLLM's: the stop text that ended the answer


class PromptDetails(msgspec.Struct):
    """How many of the prompt's tokens the prefix cache had."""

    cached_tokens: Number | None = None


class CompletionDetails(msgspec.Struct):
    """How many of the answer's tokens are reasoning."""

    reasoning_tokens: Number | None = None


class Usage(msgspec.Struct):
    """The token counts of a request."""

    prompt_tokens: Number | None = None
    completion_tokens: Number | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Chunk(msgspec.Struct):
    """An event's data, or the whole body of an answer that is not streamed."""

    id: str = ""
    model: str = ""
    choices: list[Choice] = []
    usage: Usage | None = None
    error: msgspec.Raw | None = None


_DECODER = msgspec.json.Decoder(Chunk)


def read_chunk(data: bytes) -> Chunk:
    """Read an event's data or a body.

    Raises:
        EngineFailed: it is not what an OpenAI server answers.
    """
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        logger.warning("engine's answer cannot be read", extra={"error": str(error)[:200]})
        raise EngineFailed("The engine's answer cannot be read.") from None


@dataclass(slots=True)
class _Answer:
    pieces: list[str] = field(default_factory=list[str])
    reasoning: list[str] = field(default_factory=list[str])
    tool_calls: dict[int, dict[str, Any]] = field(default_factory=dict[int, dict[str, Any]])
    finish_reason: str | None = None


@dataclass(slots=True)
class Transcript:
    """Collects the answers of one request, however they come."""

    usage: Usage = field(default_factory=Usage)
    _answers: dict[int, _Answer] = field(default_factory=dict[int, _Answer])

    def add(self, chunk: Chunk) -> None:
        """Take in one event or one whole body."""
        if chunk.usage is not None:
            self.usage = chunk.usage
        for choice in chunk.choices:
            answer = self._answers.get(choice.index)
            if answer is None:
                answer = self._answers[choice.index] = _Answer()
            piece = choice.delta or choice.message
            text = choice.text if piece is None else piece.content
            if text:
                answer.pieces.append(text)
            if piece is not None:
                if thought := piece.thought:
                    answer.reasoning.append(thought)
                for position, call in enumerate(piece.tool_calls or ()):
                    _merge(answer.tool_calls, position, dict(call))
            if choice.finish_reason is not None:
                answer.finish_reason = choice.finish_reason

    def answers(self) -> tuple[LoggedAnswer, ...]:
        """The answers by choice, whole or as far as they came."""
        return tuple(map(self.answer, sorted(self._answers)))

    def answer(self, choice: int) -> LoggedAnswer:
        """One of them. Raises KeyError if there is none."""
        answer = self._answers[choice]
        return LoggedAnswer(
            choice=choice,
            text="".join(answer.pieces),
            tool_calls=[answer.tool_calls[at] for at in sorted(answer.tool_calls)] or None,
            finish_reason=answer.finish_reason,
            reasoning="".join(answer.reasoning) or None,
        )

    def put_first(self, choice: int) -> None:
        """Make an answer number 0; the others follow in their order."""
        order = [choice, *(index for index in sorted(self._answers) if index != choice)]
        self._answers = {place: self._answers[index] for place, index in enumerate(order)}


def _merge(calls: dict[int, dict[str, Any]], position: int, piece: dict[str, Any]) -> None:
    """Join a piece of a tool call to what came before; the pieces of `arguments` add up."""
    index = piece.pop("index", None)
    call = calls.setdefault(index if isinstance(index, int) else position, {"function": {}})
    function: dict[str, Any] = dict(piece.pop("function", None) or {})
    arguments = function.pop("arguments", None)
    known: dict[str, Any] = call["function"]
    known.update({key: value for key, value in function.items() if value is not None})
    if arguments is not None:
        known["arguments"] = f"{known.get('arguments', '')}{arguments}"
    call.update({key: value for key, value in piece.items() if value is not None})
