r"""The option that a text chooses, from an explicit mark only.

A bare letter is no choice, because the article "a" would vote for option A; but a box, "answer: C",
"option C is correct", a last line that is "**C**" or "(C)", and a response that is nothing but a
letter leave no doubt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from adapters.answers.marks import emphasised, keywords_in, last_line, statements

_FACE = r"(?:\\(?:text|textbf|mathrm|mathbf|textit|textrm|boldsymbol)\s*\{\s*)"
_BEFORE = rf"(?:[\s*_:$`\"'“]|{_FACE}|\\\(|\\\[|(?:the\s+)?(?:option|choice|answer|letter)\b)"
_LETTER = r"(?:\(\s*(?P<round>[A-Za-z])\s*\)|\[(?P<square>[A-J])\]|(?P<bare>[A-Za-z])(?![\w'’]))"
_CHOICE = re.compile(rf"{_BEFORE}{{0,8}}{_LETTER}(?P<rest>[^\n]{{0,60}})", re.IGNORECASE)
_CLOSES = re.compile(
    r"[\s*_$}`\"'”\\]*(?:[.,;:)\]!—–]|$|(?:because|since|as|for|with|which|and|due)\b|-\s|\\\))",
    re.I,
)
_ENDS = re.compile(r"[\s*_$}`\"'”.)]*$")
_KEYWORDS = ("answer", "option", "choice", "statement")
_MARK = re.compile(
    r"\b(?:answer|option|choice|statement)\b[^.\n:=?!]{0,60}?[\s*_}\"']{0,4}"
    r"(?:(?:(?:should|would|must|will)\s+(?:therefore\s+)?be|is|:|=)(?!\w))",
    re.IGNORECASE,
)
_NAMED = re.compile(  # "option C is correct", "C is the correct answer"
    r"(?:\b(?i:option|choice|answer|statement)\s+[*_(\[]{0,3}(?P<named>[A-Ja-j])[*_)\]]{0,3}"
    r"|(?<![\w'’])[*_(]{0,3}(?P<alone>[A-J])[*_)]{0,3})\s+is\s+(?:indeed\s+|therefore\s+)?"
    r"(?P<the>the\s+)?(?:most\s+|only\s+|best\s+|single\s+)?"
    r"(?:correct|right|true|best|accurate|appropriate|answer|valid)\b"
)
_CHOSEN = re.compile(
    r"\b(?:choose|select|pick|go\s+with|opt\s+for|chose|going\s+with)\s+"
    r"(?:(?:option|choice|answer)\s+)?[*_(]{0,3}(?P<letter>[A-J])(?![\w'’])(?P<rest>[^\n]{0,20})"
)
_CHOOSING = ("choose", "chose", "select", "pick", "go with", "going with", "opt for")
_BACK, _AHEAD = 24, 60  # characters around "is" in which `_NAMED` lies
_FINAL_OPTION = re.compile(
    r"(?:\((?P<letter>[A-Z])\)|\b(?:[Oo]ption|[Cc]hoice)\s+[*_(]{0,3}(?P<named>[A-J])[*_)]{0,3})"
    r"[\s.*_$`]*$"
)
_ANY_OPTION = re.compile(r"\(([A-Z])\)")
_WHOLE_LINE = re.compile(rf"[\s*_$`>#-]*{_FACE}?\(?(?P<letter>[A-J])\)?[\s*_$`.}}]*")
_LISTED = re.compile(r"^[\s*_(#-]{0,6}(?P<letter>[A-J])[*_]{0,2}(?P<by>[).:])[*_]{0,2}\s", re.M)
_IN_LINE = re.compile(r"(?<!\w)\(?([A-J])[).](?=\s|$)")
_BOXED = re.compile(
    rf"\s*(?:\\text\s*\{{\s*)?(?:(?:option|choice|answer)\b[\s:]*)?{_FACE}*\(?(?P<letter>[A-Za-z])"
    r"(?:[\s}]*$|\)[\s}]*$|[).:][\s}\\]|[\s}]*\)[\s}\\])",
    re.IGNORECASE,
)


def choice_letter(answer: str) -> str | None:
    r"""The option that an answer names: "C" for `C`, `(c)`, `\text{C}`, `C) 12`; else None."""
    match = _BOXED.match(answer.strip(" .*_$\"'`"))
    return match["letter"].upper() if match else None


def marked_choice(text: str, *, lenient: bool) -> str | None:
    """The option after the last mark that has one, else the last line's.

    Args:
        text: the final part of a response, without a box.
        lenient: the question is known to have options, so "B is right" is about option B, and not
            about an angle.
    """
    last = max(_marked(text, lenient=lenient), default=None)
    if last is not None:
        return last[1].upper()
    return _of_last_line(text, lenient=lenient)


def _marked(text: str, *, lenient: bool) -> Iterator[tuple[int, str]]:
    """Where a mark with an option ends, and the option."""
    marks = (_MARK.match(text, start) for start in keywords_in(text, _KEYWORDS))
    for mark in filter(None, marks):
        match = _CHOICE.match(text, mark.end())
        if match is not None and (letter := _after_mark(match, mark[0], lenient=lenient)):
            yield mark.end(), letter
    for start in keywords_in(text, (" is ",)):
        match = _NAMED.search(text, max(0, start - _BACK), start + _AHEAD)
        if match is not None and (lenient or match["named"] or match["the"]):
            yield match.end(), match["named"] or match["alone"]
    chosen = (_CHOSEN.match(text, start) for start in keywords_in(text, _CHOOSING))
    for match in filter(None, chosen):
        if _CLOSES.match(match["rest"]):
            yield match.end(), match["letter"]
    if lenient:
        for statement in statements(text):
            letter = choice_letter(statement)
            if letter is not None and len(statement) < 4 and statement not in ("a", "i"):
                yield text.rfind(statement), letter


def _after_mark(match: re.Match[str], mark: str, *, lenient: bool) -> str | None:
    """The letter after a mark. A small one without brackets is an option only before a stop, and
    `a` and `i` only behind a colon.
    """
    bracketed = match["round"] or match["square"]
    if bracketed:
        return bracketed if bracketed.upper() <= "J" else None
    bare, rest = match["bare"], match["rest"]
    if bare.isupper():
        return bare if _CLOSES.match(rest) else None
    ends = _ENDS.match(rest) is not None
    if not lenient or bare > "j" or not ends:
        return None
    return bare if bare not in "ai" or mark.rstrip("*_ ").endswith((":", "=")) else None


def _of_last_line(text: str, *, lenient: bool) -> str | None:
    line = last_line(text)
    whole = _WHOLE_LINE.fullmatch(line)
    if whole is not None:
        return whole["letter"]
    final = _FINAL_OPTION.search(line[-200:])
    # A line with several options is a list of them, perhaps cut off.
    if final is not None and len(set(_ANY_OPTION.findall(line))) <= 1:
        return final["letter"] or final["named"]
    listed = _LISTED.match(line)
    if listed is not None and (lenient or listed["by"] == ")"):
        options = {match["letter"] for match in _LISTED.finditer(text)}
        alone = options | set(_IN_LINE.findall(line)) == {listed["letter"]}
        return listed["letter"] if alone else None
    bold = emphasised(text)
    return choice_letter(bold) if bold is not None and lenient else None
