"""The last match of a tenant's regular expression in a response.

The pattern runs in `adapters.pattern`, in linear time and within a budget of steps: a search that
runs out of it finds nothing.
"""

from __future__ import annotations

from adapters.pattern import Steps, compile_pattern

MAX_STEPS = 1_000_000  # of the matcher for one response: some 0.4 s
ANSWER = "answer"


def match_answer(text: str, pattern: str) -> str | None:
    """The group `answer` of the last match that is not blank, else its first group, else all of it.

    None without a match.

    Raises:
        UnsupportedPattern: the matcher does not support it; `AnswerSpec` refuses it before.
    """
    compiled = compile_pattern(pattern)
    group = compiled.groups.get(ANSWER, min(1, compiled.num_groups))
    found = None
    for match in compiled.finditer(text, Steps(MAX_STEPS)):
        start, end = match.get(group, (0, 0))
        if text[start:end].strip():
            found = start, end
    return None if found is None else text[found[0] : found[1]]
