"""The final answer of a response, as written.

Only explicit marks count: a box, "the answer is", "####", "(C)" as the last word. The last number
of a text is no answer: a chain of thought that was cut off must not vote. Where marks compete, the
last one of the strongest sort wins. Work is linear in the tail that is looked at.
"""

from __future__ import annotations

import re

from adapters.answers.canonical import canonical
from adapters.answers.choices import choice_letter, marked_choice
from adapters.answers.documents import document_answer
from adapters.answers.final_part import LONG_TAIL, TAIL, final_part, tagged
from adapters.answers.labels import label_answer
from adapters.answers.latex import clean
from adapters.answers.marks import boxed, displayed, emphasised, statements
from adapters.answers.matches import match_answer
from adapters.answers.numbers import canonical_number, is_unit, parse_number
from adapters.answers.spec import MAX_ANSWER, AnswerKind, AnswerSpec, as_spec

MAX_BARE = 64  # characters of a response that is only a number

# What UTF-8 or PostgreSQL's text cannot hold, and no answer needs.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_NUMBER = (
    r"[-+−]?\s?(?:\\?[$€£₹])?\s?[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d)\.)?"
    r"(?:(?<=\d)\s?/\s?\d+)?(?:(?<=\d)[eE][-+]?\d{1,3})?"
)
_NUMBER_THEN_UNIT = re.compile(
    rf"(?P<number>{_NUMBER})(?P<percent>\s?\\?%|\s+percent\b)?"
    r"(?P<unit>(?:[cmk]m|k?g|ml|°|\s?[$€£]|\s[^\W\d_]{1,20})?(?:\s[^\W\d_]{1,20}){0,7})\)?"
)
_ONE_NUMBER = re.compile(
    r"(?<![\w.,/^\\])(?:\\?[$€£₹])?[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?\\?%)?(?![\w/^\\])"
)
_FILLER = re.compile(
    r"(?:(?:therefore|thus|hence|simply|just|exactly|clearly|indeed|actually|obviously|now|then"
    r"|given\s+by|equal\s+to|found\s+to\s+be|approximately|about|around|roughly|also|still"
    r"|the\s+(?:number|value|integer|fraction|amount|sum)|that|option(?=\s*:))\b[\s,:]*|[≈:=]\s*"
    r"|\\approx\s*)+",
    re.IGNORECASE,
)
_REASON = re.compile(
    r",?\s+(?:because|since|as|so|where|when|after|if|given|which|that|obtained|found)\b"
    r"|[,;]\s+(?:but|for|we|it|this|the|she|he|they|with|assuming|not)\b|\s\(|\s[-–—]\s(?=[A-Za-z])",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r",?\s+(?:because|since|so|where|when|after|if|given|which|obtained)\b", re.IGNORECASE
)
_RETRACTS = re.compile(r"(?:not|never|no\s+longer|unknown|unclear|wrong|incorrect|n't)\b", re.I)
_COMMENT = re.compile(
    r"(?:correct|right|wrong|incorrect|valid|reasonable|consistent|verified|confirmed|helpful|clear"
    r"|follows?|unique|complete|below|above|given|shown|obtained|known|ready|simple|obvious|here"
    r"|between|from|either|neither|more|less|fewer|greater|this|that|these|boxed?|provided|let|now"
    r"|found|calculated|step)\b|(?:a|an|the)$|(?:as|at|it|in|we|i|you|to|the|a|an)\s+[a-z]{2,}",
    re.IGNORECASE,
)
_NO_SINGLE = re.compile(
    r"\b(?:step|part|case|question|problem|pi|sqrt|root|squared|cubed|times|over|plus|minus|divided|million|billion|trillion"
    r"|thousand|hundred|dozen|half|third|thirds|quarter|quarters|more\s+than|less\s+than|at\s+least"
    r"|at\s+most|up\s+to|between|or|not|no|n't|n’t|if|mod|base|percent|power|[ap]\.?m)\b|[=^*+:\\{]",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"\b(?:or|and)\b|,\s|[<>≤≥]\s*$")
_OPERATOR = re.compile(r"[-+*/^<>]|\\(?:times|cdot|div)")
_VARIABLE = re.compile(r"(?<![a-zA-Z\\])(?!(?:of|is|to|in|at)\b)[a-zA-Z]{1,2}(?![a-zA-Z])")
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_TEXT = re.compile(
    r"\\(?:begin|end)\{\w+\}(?:\{\w+\})?|\\[a-zA-Z]*(?:text|rm|bf|it)[a-z]*\s*\{[^{}]*\}|\b(?:or|and)\b"
)
_LOOKS_LIKE_MATHS = re.compile(r"[\\^=_<>(\[|√π∞≤≥±]|\d")


def extract(text: str, spec: AnswerSpec | AnswerKind) -> str | None:
    """The final answer as written, or None if the text ends without one. Cheap; never raises for a
    text, however hostile.

    Args:
        text: a response.
        spec: what is looked for; a kind that needs no options may stand for itself.

    Raises:
        ValueError: a kind without the options that it needs, or `python`, whose functions run only
            in the processes of `Equivalence.extract`.
    """
    spec = as_spec(spec)
    end = final_part(text, LONG_TAIL if spec.kind == "json" else TAIL)
    inner = tagged(end)
    if inner is not None:
        end = inner if spec.kind in ("json", "regex") else f"Answer: {inner}"
    answer = _find(end, spec)
    return None if answer is None else storable(answer, spec)


def storable(answer: str, spec: AnswerSpec) -> str | None:
    """The answer stripped, or None if it is empty, too long or holds what no database can."""
    answer = answer.strip()
    if not 0 < len(answer) <= spec.longest or _UNSTORABLE.search(answer):
        return None
    return answer


def _find(text: str, spec: AnswerSpec) -> str | None:
    match spec.kind:
        case "auto":
            return boxed(text) or marked_choice(text, lenient=False) or _expression(text)
        case "math":
            return boxed(text) or _expression(text)
        case "number":
            return _number(text)
        case "choice":
            box = boxed(text)
            return marked_choice(text, lenient=True) if box is None else choice_letter(box)
        case "label":
            return label_answer(text, spec.labels)
        case "json":
            return document_answer(text, spec.field)
        case "regex":
            return match_answer(text, spec.pattern or "")
        case "text":
            return boxed(text) or next(statements(text), text)
        case "python":
            raise ValueError("answer kind 'python': its functions run in Equivalence.extract only")


def _number(text: str) -> str | None:
    box = boxed(text)
    if box is None:
        return _marked(text, prose=False)
    return box if canonical(box[:MAX_ANSWER], "number") is not None else None


def _expression(text: str) -> str | None:
    return _marked(text, prose=True)


def _marked(text: str, *, prose: bool) -> str | None:
    """What the last mark points at, or the one before if the last one only comments on it."""
    for statement in statements(text):
        statement = _FILLER.sub("", statement, count=1) if _FILLER.match(statement) else statement
        if statement.endswith("?") or _RETRACTS.match(statement):
            return None
        value = _leading_number(statement)
        if value is None and prose:
            value = _formula(statement)
        value = value or _only_number(statement)
        if value is not None:
            return value
    bold = emphasised(text)
    value = None if bold is None else _leading_number(bold)
    return value or _whole(text.strip(), prose=prose)


def _whole(text: str, *, prose: bool) -> str | None:
    """A response that is nothing but a number, or a formula between dollars."""
    shown = displayed(text)
    bare = shown or text
    is_number = len(bare) <= MAX_BARE and canonical_number(clean(bare)) is not None
    return bare if is_number or (prose and shown is not None) else None


def _leading_number(statement: str) -> str | None:
    """The number that a statement consists of, with some words of unit or of reason behind it."""
    for part in (statement, _REASON.split(statement, maxsplit=1)[0]):
        before, equals, value = part.rpartition("=")
        if equals and not _is_computation(before):
            continue
        for candidate in (_plain(value), _plain(_REASON.split(value, maxsplit=1)[0])):
            match = _NUMBER_THEN_UNIT.fullmatch(candidate)
            number = match["number"].strip() if match is not None else ""
            if match is not None and is_unit(match["unit"]) and _is_number(number):
                return number.lstrip("\\$€£₹") + ("%" if match["percent"] else "")
            if canonical_number(clean(candidate)) is not None:
                return candidate
    return None


def _is_number(text: str) -> bool:
    return parse_number(text.strip(" \\$€£₹")) is not None


def _is_computation(before: str) -> bool:
    """Whether what stands before the last "=" has that value: `x`, `f(2)`, `3 * 6`, `x = 3 * 6`,
    and not `2x + y` or `x = 2 or x`.
    """
    name, *steps = before.split("=")
    named = not _OPERATOR.search(name)
    letters = [_VARIABLE.search(part) for part in ((*steps,) if named else (name, *steps))]
    return not any(letters) and not _SEVERAL.search(before)


def _plain(value: str) -> str:
    value = value.strip(' *_`"')
    if value.count("$") > 1 or value.endswith("$"):
        value = value.strip(" $")
    return value.removeprefix(r"\(").removesuffix(r"\)").strip().rstrip(" .")


def _formula(statement: str) -> str | None:
    """A statement that is a formula, or at most three words; prose is none."""
    shown = re.sub(r"(?<!\\)\$|\\[()]", "", statement)
    for candidate in (_CLAUSE.split(shown, maxsplit=1)[0], shown):
        candidate = candidate.strip(" .,;*_`")
        words = _WORD.findall(_TEXT.sub("", candidate))
        if not candidate or _COMMENT.match(candidate):
            continue
        if len(candidate.split()) <= 3 or (_LOOKS_LIKE_MATHS.search(candidate) and len(words) <= 2):
            return candidate
    return None


def _only_number(statement: str) -> str | None:
    """The one number of a short sentence, such as "she makes $18 a day"."""
    if _NO_SINGLE.search(statement) or len(statement.split()) > 25:
        return None
    found = _ONE_NUMBER.findall(statement)
    digits = [sum(map(str.isdigit, text)) for text in (statement, "".join(found))]
    return found[0] if len(found) == 1 and digits[0] == digits[1] else None
