r"""Where a text says what its answer is: a box, "the answer is", "####", "A:", the last bold words.

What a mark points at is returned as a statement, still to be read as a number, a formula, an option
or a label. All patterns are bounded, so the work is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from adapters.answers.spec import MAX_ANSWER

MAX_MARKS = 4  # statements that are looked at, from the last one back

# Also without its backslash, with two, and with the backspace that a careless "\b" makes of it.
_BOX = re.compile(r"(?:\\{0,3}(?:boxed|fbox)|\x08oxed)\s{0,9}\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\boxed\s+([^\s{}$\\]{1,40}?)[.,;]?(?=[\s$\\]|$)")

_DECORATION = r"[\s*_`\"'“”}]"
_BRIDGE = (  # "the answer to this question is", "the answer we get is", "Answer (in cm):"
    r"(?:\s+(?:to|of|for|in|here|then|therefore|thus|hence|that|we|you|i|obtained)\b"
    r"[^.\n:=?!]{0,60}?|\s*\([^()\n]{0,30}\))?"
)
_VERB = (
    r"(?:(?:\s(?:should|would|must|will|can)\s(?:then\s|therefore\s)?be"
    r"|\s(?:is|are|was|comes?\s(?:out\s)?to(?:\sbe)?|equals|becomes)"
    r"|(?<=[*_`\"'”}])(?:is|are))(?!\w)|[=:：→⇒]|->|=>|\s[-–—](?=\s))"
)
_MARK = re.compile(
    rf"(?:(?<![^\W_])(?:answers?|ans|final\s+(?:result|solution))(?![^\W_])\.?{_BRIDGE}{_DECORATION}{{0,4}}?"
    rf"{_VERB}"
    r"|\bans\.(?=\s)"
    r"|答案\s*(?:应该|应|就)?\s*(?:是|为|選|选|：|:)+|答\s*[:：]|答えは|答え\s*[:：]|정답은|정답\s*:|답은"
    r"|\b(?:respuesta|réponse|antwort|resposta|risposta|ответ)(?:\s(?:final\w*|correct\w*))?"
    r"\s{0,2}(?:es|est|ist|lautet|é|è)?\b(?:\*\*)?\s*:?)",
    re.IGNORECASE,
)
_KEYWORDS = (
    "answer", "ans", "final", "答", "정답", "답은", "respuesta", "réponse", "antwort", "resposta",
    "risposta", "ответ",
)  # fmt: skip
_HEADING = re.compile(  # possessive, or a line of blanks costs its square
    r"^[ \t]*+(?:#{1,6}[ \t]*+)?(?:\*\*|__)?(?:final[ \t]++)?answer[ \t]*+:?(?:\*\*|__)?[ \t]*+$",
    re.IGNORECASE | re.MULTILINE,
)
_HASHES = re.compile(r"^#{4}[ \t]*(?=[-+−$€£₹\\(\d.*]|[A-J]\W*$|[^\n]{1,200}\s*\Z)", re.MULTILINE)
_A_LINE = re.compile(r"^[ \t*_]{0,4}A(?:ns)?[*_]{0,2}[ \t]?:", re.MULTILINE | re.IGNORECASE)
_B_LINE = re.compile(r"^[ \t*_(]{0,4}B[*_)]{0,3}[ \t]?[:.)]", re.MULTILINE)

_SKIPPED = re.compile(rf"\A(?:{_DECORATION}|[:~：]|\\(?:quad|qquad|[ ,;!]))*")
_DISPLAY = re.compile(
    r"\\\[(?P<square>.{1,512}?)\\\]|\$\$(?P<double>[^$]{1,512})\$\$|\\\((?P<round>.{1,512}?)\\\)"
    r"|\$(?![\s$])(?P<single>[^$\n]{0,510}[^$\s\\])\$(?!\d)",
    re.DOTALL,
)
_SENTENCE = re.compile(r"(?:\\[^\n]|[^\n.!?\\]|[.!?](?![\s*_\"')$]|\\[)\]]|$)|(?<=\d)!)*[.!?]?")
_GOES_ON = re.compile(r"\s*(?:,|;|or\b|and\b|,\s*(?:or|and)\b)\s*(?:\$|\\\(|[a-zA-Z]\s*=)")
_BOLD = re.compile(r"(?:\*\*|__)(?P<bold>[^*_\n]{1,200})(?:\*\*|__)")
_AROUND_BOLD = re.compile(r"[^\n]{0,300}\.[\s*_)\"']*$")


def boxed(text: str) -> str | None:
    """What the last balanced box holds; an empty box is talk about boxes. One pass, one stack."""
    begin = min((at for at in (text.find("box"), text.find("\x08ox")) if at >= 0), default=-1)
    if begin < 0:
        return None
    begin = max(0, begin - 4)
    opened: list[int | None] = []  # per open brace: where its box's content starts, None: no box
    best: tuple[int, int] | None = None
    for match in _BOX.finditer(text, begin):
        token = match[0]
        if token == "}":
            start = opened.pop() if opened else None
            later = start is not None and (best is None or start > best[0])
            if start is not None and later and text[start : match.start()].strip():
                best = (start, match.start())
        elif token.endswith("{") and token != r"\{":
            opened.append(match.end() if len(token) > 1 else None)
    bare = max(_BARE_BOX.finditer(text, begin), key=lambda match: match.start(), default=None)
    if bare and (best is None or bare.start(1) > best[1]):
        return bare[1]
    return text[best[0] : best[1]] if best else None


def statements(text: str) -> Iterator[str]:
    """What the marks point at, the last one first; a statement is never empty."""
    ends = set(_ends(text))
    if not ends and _B_LINE.search(text) is None:
        ends = {match.end() for match in _A_LINE.finditer(text)}
    for end in sorted(ends, reverse=True)[:MAX_MARKS]:
        statement = _statement(text[end : end + 2 * MAX_ANSWER])
        if statement:
            yield statement


def keywords_in(text: str, keywords: Iterable[str]) -> Iterator[int]:
    """Where one of the words begins, in any case. Much faster than a regular expression."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters become two
        lowered = "".join(char if len(char.lower()) > 1 else char.lower() for char in text)
    for keyword in keywords:
        start = lowered.find(keyword)
        while start >= 0:
            yield start
            start = lowered.find(keyword, start + 1)


def _ends(text: str) -> Iterator[int]:
    """Where marks end; those of the last words first, since they decide."""
    for start in keywords_in(text, _KEYWORDS):
        line = text.rfind("\n", 0, start) + 1
        for match in (_MARK.match(text, start), _HEADING.match(text, line)):
            if match is not None:
                yield match.end()
    if "####" in text:
        yield from (match.end() for match in _HASHES.finditer(text))


def displayed(text: str) -> str | None:
    """The formula that the text consists of, between dollars or the like; else None."""
    match = _DISPLAY.fullmatch(text) if len(text) <= 2 * MAX_ANSWER else None
    return None if match is None else next(part for part in match.groups() if part is not None)


def last_line(text: str) -> str:
    """The last line that is not blank, at most 512 characters from its end."""
    return text.rstrip().rpartition("\n")[2][-MAX_ANSWER:].strip()


def emphasised(text: str) -> str | None:
    """The bold words of the last line, where there is one such place and the line is complete."""
    line = last_line(text)
    found = list(_BOLD.finditer(line))
    if len(found) != 1:
        return None
    bold, behind = found[0], line[found[0].end() :]
    if bold.start() > 0 and not _AROUND_BOLD.fullmatch(behind) and behind.strip(" ."):
        return None
    return bold["bold"].strip() or None


def _statement(rest: str) -> str:
    """A display, or the rest of the sentence, without decoration."""
    rest = _SKIPPED.sub("", rest, count=1)
    display = _DISPLAY.match(rest)
    if display is not None and not _GOES_ON.match(rest, display.end()):
        inner = next(part for part in display.groups() if part is not None)
        unit = _SENTENCE.match(rest, display.end())
        behind = unit[0] if unit is not None else ""
        return f"{inner.strip()}?" if behind.strip(" *_").startswith("?") else inner.strip()
    sentence = _SENTENCE.match(rest)
    statement = sentence[0] if sentence is not None else ""
    statement = statement.strip(" \t\r").rstrip("*_`\"'” \t").rstrip("。!").removesuffix(".")
    return statement.strip(' \t*_`"“”').removesuffix(".")
