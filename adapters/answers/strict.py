r"""The published extraction in kind, for the strict vote only: the strings that TTRL's code counts.

It differs from ours in what it lets vote (PRIME-RL/TTRL, verl/utils/reward_score/ttrl, read at
3e2cc93; nothing is copied): what stands behind the last "boxed", closed or not; else behind the
last "he answer is"; else the last number of the text, whatever it counts. Of options it takes the
last letter A to D that stands alone in any case, so the article "a" votes for A. Strings are
cleaned and then compared as they are: `\frac{1}{2}` and `0.5` are two answers.

Deviations: a response in which nothing is found does not vote (there, the empty string does, and
can win); the words of unit that are dropped are those that come up, not all 130; answers are
bounded.
"""

from __future__ import annotations

import re

from adapters.answers.final_part import LONG_TAIL
from adapters.answers.numbers import parse_number
from adapters.answers.spec import MAX_ANSWER, AnswerSpec

READ_STRICTLY = frozenset(("auto", "math", "number", "choice"))  # the published code has no other

_NUMBER = re.compile(r"-?\d{0,400}\.?\d{1,400}")
_OPTION = re.compile(r"\b[A-D]\b")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_WORDS = re.compile(r"\d+|[a-zA-Z -]+")
_UNITS = (
    "degree|mph|kmph|ft|mile|lb|inches|inch|feet|hour|hr|minute|min|second|sec|day|month|year|yr"
    "|yard|metre|meter|litre|liter|gallon|acre|square|sq|cubic|unit|percent|apple|coin|tile|man|men"
    "|woman|women|am|pm|km|kg|cm|mm|dm|gm|per|by|noon|east|west|more|less|number|ratio|profit|loss"
    "|gain|mark|prime|way|are|ab|th|st|rs|cc|[acdghlmost]"
)
# In the published order, which matters: `025.0` becomes 025 and `025` becomes 25.
_BEFORE_WORDS = (
    (r"\n\s*", ""),
    (r"^:", ""),
    (r"\.+$", ""),
    (r"\\!", ""),
    (r"\\begin\{array\}\{[^}]*\}|\\begin\{bmatrix\}", r"\\begin{pmatrix}"),
    (r"\\end\{(?:array|bmatrix)\}", r"\\end{pmatrix}"),
    (r"[td]frac", "frac"),
    (r"\\(ne|le|ge)q", r"\\\1"),
    (r"\\left|\\right", ""),
    (r"\\([{}])", r"\1"),
    (r"(?<=\S)\s*\\text\{[^}]*\}$", ""),
    (rf"(?<=.)(?<!\w)(?:{_UNITS})s?(?!\w)|(?<!\w)(?:{_UNITS})s?(?!\w)(?=.)", ""),
    (r"\^\{\\circ\}|\^\\circ", ""),
    (r"\\?\$|\\[()]", ""),
)
_AFTER_WORDS = (
    (r"\\text\{([^}]*)\}", r"\1"),
    (r"[xyz](?:=|\\in|\\to)", ""),
    (r"\\emptyset", "{}"),
    (r"\(-\\infty,\\infty\)", r"\\mathbb{R}"),
    (r"\\?%", ""),
    (r"( |\{|^)\.(?=\d)", r"\g<1>0."),
    (r"\band\b|\\mathbf|\\mbox\{[^}]*\}", ""),
    (r"(\d)\.0*(?=\D|$)", r"\1"),
    (r"^[^=]{0,2}=(?=[^=]*$)", ""),
    (r"\\sqrt(\w+)", r"\\sqrt{\1}"),
    (r" ", ""),
    (r"\\frac(\w)(\w)", r"\\frac{\1}{\2}"),
    (r"\\frac(\w)\{", r"\\frac{\1}{"),
    (r"^(-?\d+)/(-?\d+)$", r"\\frac{\1}{\2}"),
)


def _compiled(steps: tuple[tuple[str, str], ...]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in steps)


_FIRST, _SECOND = _compiled(_BEFORE_WORDS), _compiled(_AFTER_WORDS)


def strict_answer(text: str, spec: AnswerSpec) -> str | None:
    """The string that the published code would count, or None where it found nothing to count.

    Args:
        text: a response.
        spec: `choice` is read as options, `auto`, `math` and `number` as mathematics.

    Raises:
        ValueError: another kind than those of `READ_STRICTLY`.
    """
    if spec.kind not in READ_STRICTLY:
        raise ValueError(f"answer kind {spec.kind!r}: the published code has none such")
    text = text[-LONG_TAIL:]
    answer = _option(text) if spec.kind == "choice" else _cleaned(_found(text))
    return answer if 0 < len(answer) <= MAX_ANSWER and not _UNSTORABLE.search(answer) else None


def _option(text: str) -> str:
    found = _OPTION.findall(text.upper())
    return found[-1] if found else text.strip().rstrip(".")


def _found(text: str) -> str:
    if "boxed" in text:
        return _in_braces(text.rpartition("boxed")[2])
    for mark in ("he answer is", "final answer is"):
        if mark in text:
            return text.rpartition(mark)[2].strip()
    numbers = _NUMBER.findall(text.replace(",", ""))
    return numbers[-1] if numbers else ""


def _in_braces(text: str) -> str:
    """The group that opens the text; up to the end if it is never closed."""
    if not text.startswith("{"):
        return text.partition("$")[0].strip()
    depth = 0
    for place, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[1:place]
    return text[1:]


def _cleaned(answer: str) -> str:
    answer = answer[: 2 * MAX_ANSWER].strip()
    for pattern, replacement in _FIRST:
        answer = pattern.sub(replacement, answer).strip()
    number = parse_number(answer) if _WORDS.fullmatch(answer) else None
    if number is not None:
        answer = str(number)
    for pattern, replacement in _SECOND:
        answer = pattern.sub(replacement, answer)
    return answer
