"""The final answer of a response, as written.

Only explicit marks count: a box, "the answer is", "####", "(C)" as the last word. The last number
of a text is no answer: a chain of thought that was cut off must not vote. Where marks compete, the
last one of the strongest sort wins. Work is linear in the tail that is looked at.
"""

from __future__ import annotations

import re
from typing import Literal

from adapters.answers.numbers import canonical_number, is_unit, parse_number

AnswerKind = Literal["auto", "math", "number", "choice"]

TAIL = 16_384  # characters of a response that are looked at, from its end
MAX_ANSWER = 512  # a longer "answer" is none

# What UTF-8 or PostgreSQL's text cannot hold, and no answer needs.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\boxed\s+([^\s{}$\\]{1,40}?)[.,;]?(?=[\s$\\]|$)")
_MARK = re.compile(
    r"(?:\bfinal\s+answer|\banswer)\b\s{0,3}(?:\*\*|__)?\s{0,3}(?:is|are|=|:)(?!\w)", re.IGNORECASE
)
_HASHES = re.compile(r"^####\s", re.MULTILINE)
_SENTENCE = re.compile(r"(?:[^\n.!?]|[.!?](?![\s*_\"')]|$))*[.!?]?")
_NUMBER = (
    r"[-+−]?\s?(?:\\?[$€£])?\s?[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d)\.)?"
    r"(?:(?<=\d)\s?/\s?\d+)?(?:(?<=\d)[eE][-+]?\d{1,3})?"
)
_NUMBER_THEN_UNIT = re.compile(
    rf"(?P<number>{_NUMBER})(?P<percent>\s?\\?%|\s+percent\b)?"
    r"(?P<unit>(?:[cmk]m|k?g|ml|°|\s[^\W\d_]{1,20})?(?:\s[^\W\d_]{1,20}){0,2})"
)
_FRACTION = re.compile(r"-?\\[dt]?frac\s*\{-?\d+\}\s*\{\d+\}")
_LAST_LINE_ANSWER = re.compile(r"^\s*(?:A|Ans)\s*:\s*", re.IGNORECASE)

_CHOICE_AFTER_MARK = re.compile(
    r"[\s*_:$]{0,6}(?:(?:option|choice)\s+)?(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\s*)?"
    r"(?:\((?P<round>[A-Za-z])\)|(?P<bare>[A-Z])(?![\w'’]))"
    r"(?P<rest>[^\n]{0,60})"
)
_CHOICE_MARK = re.compile(
    r"\b(?:answer|option|choice)\b\s{0,3}(?:\*\*|__)?\s{0,3}(?:is|:|=)(?!\w)", re.IGNORECASE
)
_CLOSES = re.compile(r"[\s*_$}]*(?:[.,;:)!]|$|(?:because|since|as|for)\b)")
_BOXED_CHOICE = re.compile(
    r"\s*(?:\\(?:text|textbf|mathrm|mathbf|textit)\s*\{\s*)*\(?(?P<letter>[A-Za-z])"
    r"(?:[\s}]*$|\)[\s}]*$|[).:][\s}]|[\s}]*\)[\s}\\])"
)
_FINAL_OPTION = re.compile(r"\((?P<letter>[A-Z])\)[\s.*_$]*$")
_ANY_OPTION = re.compile(r"\(([A-Z])\)")


def extract(text: str, kind: AnswerKind) -> str | None:
    """The final answer as written, or None if the text ends without one. Cheap; never raises."""
    tail = text[-TAIL:]
    if kind == "choice":
        answer = _choice(tail)
    elif kind == "number":
        answer = _number(tail)
    elif kind == "math":
        answer = _boxed(tail) or _expression_after_mark(tail)
    else:
        answer = _boxed(tail) or _marked_choice(tail) or _number_after_mark(tail)
    if answer is None:
        return None
    answer = answer.strip()
    return answer if 0 < len(answer) <= MAX_ANSWER and not _UNSTORABLE.search(answer) else None


def choice_letter(answer: str) -> str | None:
    r"""The option that an answer names: "C" for `C`, `(c)`, `\text{C}`, `C) 12`; else None."""
    match = _BOXED_CHOICE.match(answer)
    return match["letter"].upper() if match else None


def _boxed(text: str) -> str | None:
    """What the last balanced box holds; an empty box is talk about boxes. One pass, one stack."""
    opened: list[int | None] = []  # per open brace: where its box's content starts, None: no box
    best: tuple[int, int] | None = None
    for match in _BOX.finditer(text):
        token = match[0]
        if token == "}":
            start = opened.pop() if opened else None
            later = start is not None and (best is None or start > best[0])
            if start is not None and later and text[start : match.start()].strip():
                best = (start, match.start())
        elif token.endswith("{") and token != r"\{":
            opened.append(match.end() if len(token) > 1 else None)
    bare = max(_BARE_BOX.finditer(text), key=lambda match: match.start(), default=None)
    if bare and (best is None or bare.start(1) > best[1]):
        return bare[1]
    return text[best[0] : best[1]] if best else None


def _after_mark(text: str) -> str | None:
    """The rest of the sentence after the last mark; None after a question."""
    end = -1
    for pattern in (_MARK, _HASHES):
        for match in pattern.finditer(text):
            end = max(end, match.end())
    if end < 0:
        last_line = text.rstrip().rpartition("\n")[2]
        match = _LAST_LINE_ANSWER.match(last_line)
        if match is None:
            return None
        text, end = last_line, match.end()
    sentence = _SENTENCE.match(text[end : end + MAX_ANSWER].lstrip(" \t\r\n*_:"))
    if sentence is None or sentence[0].endswith("?"):
        return None
    return sentence[0].strip(" \t*_\r").removesuffix(".").strip(" \t*_") or None


def _expression_after_mark(text: str) -> str | None:
    """A number or a formula after a mark. Prose is none: at most three words, or inside dollars."""
    statement = _after_mark(text)
    if statement is None:
        return None
    number = _leading_number(statement)
    if number is not None:
        return number
    if statement.startswith("$") and "$" in statement[1:]:
        return statement[1:].split("$", 1)[0]
    if statement.startswith(r"\(") and r"\)" in statement:
        return statement[2:].split(r"\)", 1)[0]
    return statement if len(statement.split()) <= 3 or "\\" in statement else None


def _number(text: str) -> str | None:
    boxed = _boxed(text)
    if boxed is None:
        return _number_after_mark(text)
    return boxed if canonical_number(boxed[:MAX_ANSWER]) is not None else None


def _number_after_mark(text: str) -> str | None:
    statement = _after_mark(text)
    return None if statement is None else _leading_number(statement)


def _leading_number(statement: str) -> str | None:
    """The number that a statement consists of, with at most three words of unit behind it."""
    value = statement.rpartition("=")[2].strip(" $*_")
    value = value.removeprefix(r"\(").removesuffix(r"\)").strip()
    if _FRACTION.fullmatch(value):
        return value
    match = _NUMBER_THEN_UNIT.fullmatch(value)
    if match is None or parse_number(match["number"]) is None or not is_unit(match["unit"]):
        return None
    return match["number"].strip() + ("%" if match["percent"] else "")


def _choice(text: str) -> str | None:
    boxed = _boxed(text)
    if boxed is not None:
        return choice_letter(boxed)
    return _marked_choice(text)


def _marked_choice(text: str) -> str | None:
    """The option after the last mark that has one, or "(C)" as the last word of the text."""
    letter = None
    for mark in _CHOICE_MARK.finditer(text):
        match = _CHOICE_AFTER_MARK.match(text, mark.end())
        if match is not None and (match["round"] or _CLOSES.match(match["rest"])):
            letter = match["round"] or match["bare"]
    if letter is not None:
        return letter.upper()
    last_line = text.rstrip().rpartition("\n")[2][-200:]
    final = _FINAL_OPTION.search(last_line)
    # A line with several options is a list of them, perhaps cut off.
    if final is None or len(set(_ANY_OPTION.findall(last_line))) > 1:
        return None
    return final["letter"]
