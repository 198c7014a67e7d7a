"""Says what was voted, and the chosen answer as a chat completion of one: the routes' renderings
make their own of it, as of any engine's answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from server.db.log import LoggedAnswer
from server.gateway.call import Call
from server.gateway.transcript import Usage
from server.gateway.votes.plan import VotePlan
from server.gateway.votes.poll import UNJUDGED, Outcome, Progress
from server.gateway.votes.sampler import Sample

MAX_SHARES: Final = 5  # classes whose shares are told

Object = dict[str, Any]


def comment(progress: Progress) -> bytes:
    """A comment of a stream: `5 of 16 votes, leading .80`."""
    text = f"{progress.num_votes} of {progress.votes} votes"
    if progress.leading is not None:
        text += ", leading " + f"{progress.leading:.2f}".removeprefix("0")
    return b": " + text.encode() + b"\n\n"


def told(plan: VotePlan, outcome: Outcome, num_begun: int) -> Object:
    """The object `ttrl` of a response."""
    vote, sampled = outcome.vote, len(outcome.answers)
    by_answer: Mapping[str, float] = vote.shares if vote else {}
    shares = sorted(by_answer.items(), key=lambda item: (-item[1], item[0]))
    return {
        "label": vote.label if vote else None,
        "reason": vote.reason if vote else UNJUDGED,
        "majority_ratio": vote.majority_ratio if vote else None,
        "shares": [{"answer": name, "share": share} for name, share in shares[:MAX_SHARES]],
        "votes": plan.wanted,
        "bounded": plan.votes < plan.wanted,
        "sampled": sampled,
        "cancelled": num_begun - sampled,
        "answers": vote.num_answers if vote else None,
        "decided": outcome.is_decided,
    }


class ChosenAnswer:
    """The chosen answer in the engine's form, with the token counts of the whole vote."""

    def __init__(self, call: Call, answer: LoggedAnswer, sample: Sample, usage: Usage) -> None:
        self._call = call
        self._answer = answer
        self._sample = sample
        self._usage = usage

    def whole(self) -> Object:
        """The body."""
        answer = self._answer
        message: Object = {
            "role": "assistant",
            "content": answer.text if answer.text or not answer.tool_calls else None,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
        }
        if answer.tool_calls:
            message["tool_calls"] = answer.tool_calls
        message["reasoning"] = answer.reasoning
        choice = {"index": 0, "message": message, "logprobs": self._logprobs(), **self._end()}
        return self._object("chat.completion", [choice]) | {"usage": self._counts()}

    def chunks(self, ttrl: Object) -> list[Object]:
        """The stream's events, but what ends it; `ttrl` comes with the reason why it ended."""
        answer = self._answer
        deltas: list[Object] = [{"role": "assistant", "content": ""}]
        if answer.reasoning:
            deltas.append({"reasoning": answer.reasoning})
        if answer.text:
            deltas.append({"content": answer.text})
        for index, call in enumerate(answer.tool_calls or ()):
            deltas.append({"tool_calls": [{"index": index, **call}]})
        deltas.append({})
        choices = [
            {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
            for delta in deltas
        ]
        choices[1 + bool(answer.reasoning) if answer.text else -1]["logprobs"] = self._logprobs()
        choices[-1] |= self._end()
        kind = "chat.completion.chunk"
        events = [self._object(kind, [choice]) for choice in choices]
        events[-1]["ttrl"] = ttrl
        return [*events, self._object(kind, []) | {"usage": self._counts()}]

    def _object(self, kind: str, choices: list[Object]) -> Object:
        call = self._call
        return {
            "id": call.answer_id,
            "object": kind,
            "created": int(call.created_at.timestamp()),
            "model": call.version.engine_name,
            "choices": choices,
        }

    def _end(self) -> Object:
        return {
            "finish_reason": self._answer.finish_reason,
            "stop_reason": self._sample.stop_reason,
        }

    def _logprobs(self) -> Object | None:
        asked = self._call.asked.upstream.get("logprobs")
        return {"content": self._sample.logprobs} if asked else None

    def _counts(self) -> Object:
        usage: Object = msgspec.to_builtins(self._usage)
        total = (self._usage.prompt_tokens or 0) + (self._usage.completion_tokens or 0)
        return usage | {"total_tokens": total}
