"""What a request may come to, said before an engine has seen it, and what it came to."""

from __future__ import annotations

from typing import Final

from server.gateway.call import Call
from server.gateway.parsing import Asked, num_prompts

CHARS_PER_TOKEN: Final = 4
USUAL_TOKENS: Final = 256  # of an answer whose length is not bounded by the request


def num_answers(asked: Asked) -> int:
    """How many answers an engine will be making at once."""
    prompt = asked.upstream.get("prompt")
    return (asked.upstream.get("n") or 1) * (1 if prompt is None else num_prompts(prompt))


def estimated_tokens(asked: Asked, body_bytes: int, answers: int) -> int:
    """Tokens of prompt and answers: what is bounded as bounded, the rest as usual."""
    upstream = asked.upstream
    longest = upstream.get("max_completion_tokens") or upstream.get("max_tokens") or USUAL_TOKENS
    return body_bytes // CHARS_PER_TOKEN + answers * longest


def used_tokens(call: Call, estimate: int) -> int:
    """What it came to: the engine's count, or where it was not told (the client left, the engine
    died) the estimate, and more where more was seen.
    """
    usage = call.transcript.usage
    if usage.completion_tokens is not None:
        return (usage.prompt_tokens or 0) + usage.completion_tokens
    answers = call.transcript.answers()
    chars = sum(len(answer.text) + len(answer.reasoning or "") for answer in answers)
    return max(estimate, chars // CHARS_PER_TOKEN)
