"""The part of a response in which its answer may stand.

Dropped are: what was thought aloud before it (`<think>`), tokens that end a turn and what a base
model went on with behind them, and further questions that it asked itself. A thought that was never
closed was cut off: it has no final part.
"""

from __future__ import annotations

import re

TAIL = 16_384  # characters of a response that are looked at, from its end
LONG_TAIL = 131_072  # the same for a JSON document

_THOUGHT = "think|thinking|thought|thoughts|reasoning|reflection|analysis"
_OPENS = re.compile(rf"<(?:{_THOUGHT})>|<\|begin_of_thought\|>|◁think▷", re.IGNORECASE)
_CLOSES = re.compile(
    rf"</(?:{_THOUGHT})>|<\|end_of_thought\|>|◁/think▷|<\|channel\|>final<\|message\|>",
    re.IGNORECASE,
)
_SPECIAL = re.compile(r"<\|\w{1,40}\|>|<｜[^｜\n]{1,40}｜>|</?s>|<eos>|<(?:end|start)_of_turn>")
_TAG_OPENS = re.compile(r"<(?:final_?)?answer>", re.IGNORECASE)
_TAG_CLOSES = re.compile(r"</(?:final_?)?answer>", re.IGNORECASE)
_CALCULATED = re.compile(r"<<[^<>\n]{0,80}>>")  # GSM8K's notes to a calculator
_ANSWERED = re.compile(r"\banswer\b[^\n]{0,40}?(?:is|:)|^####|boxed|^\W{0,4}A\W{0,3}:", re.M | re.I)
_NEXT_QUESTION = re.compile(r"^\W{0,4}(?:Q|Question|Problem|User|Human)\b[ \d]{0,4}\W{0,3}:", re.M)


def final_part(text: str, tail: int = TAIL) -> str:
    """The end of a response, at most `tail` characters. Linear in the text; never raises."""
    end = text[-tail:]
    if "<" in text or "◁" in text:
        end = _without_thought(text, end)
        end = _CALCULATED.sub("", end)
        end = next((part for part in _SPECIAL.split(end) if part.strip()), "")
    if _NEXT_QUESTION.search(end) is None:
        return end
    answered = _ANSWERED.search(end)
    further = _NEXT_QUESTION.search(end, answered.end()) if answered else None
    return end[: further.start()] if further else end


def tagged(text: str) -> str | None:
    """What stands in the last `<answer>...</answer>`, or None."""
    start = max((match.end() for match in _TAG_OPENS.finditer(text)), default=-1)
    closed = _TAG_CLOSES.search(text, start) if start >= 0 else None
    return text[start : closed.start()].strip() if closed else None


def _without_thought(text: str, end: str) -> str:
    closed = 0
    for match in _CLOSES.finditer(end):
        closed = match.end()
    if closed:
        return end[closed:]
    opened = _OPENS.search(text)
    if opened is None:
        return end
    if _CLOSES.search(text, opened.end()):  # before the tail
        return end
    return text[: opened.start()][-len(end) :]
