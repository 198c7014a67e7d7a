r"""Exact numbers as models write them: `025`, `66.`, `1,296`, `\$18.90`, `1\frac{4}{5}`, `25\%`.

A number becomes a fraction, never a float, so that `0.333` is not one third. A percentage keeps its
sign: whether `25%` answers a question that `0.25` answers is not ours to say.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_EXPONENT = 400  # of scientific notation: keeps a hostile `1e999999999` small

_DECIMAL = r"(?:\d+\.?\d*|\.\d+)"
_SIGN_SPACE = re.compile(r"^([-+])\s+")
_PLAIN = re.compile(rf"[-+]?{_DECIMAL}", re.ASCII)
_THOUSANDS = re.compile(
    r"[-+]?(?:\d{1,3}(?:,\s?\d{3})+|\d{1,3}(?:[ '’]\d{3})+|\d{1,2}(?:,\d{2})+,\d{3})(?:\.\d*)?",
    re.ASCII,
)
_SEPARATORS = str.maketrans("", "", ", '’")
_MAGNITUDES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9,
               "trillion": 10**12}  # fmt: skip
_MAGNITUDE = re.compile(
    r"(?P<count>[^a-zA-Z]{1,40}?)\s*(?:\\text\s*\{\s*)?"
    r"(?P<name>hundred|thousand|million|billion|trillion)\b(?P<unit>[\s\w}]{0,60})",
    re.IGNORECASE,
)
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORD_VALUES = {word: value for value, word in enumerate(_SMALL)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_WORD_NUMBER = re.compile(r"[a-z]{3,9}(?:[\s-]{1,3}[a-z]{3,9}){0,8}", re.IGNORECASE)
_RATIO = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<whole>\d+)\s+)?(?P<top>[-+]?{_DECIMAL})\s*/\s*(?P<bottom>{_DECIMAL})",
    re.ASCII,
)
_FRAC = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<whole>\d+)?\s*\\frac"
    rf"(?:\s*\{{\s*(?P<top>[-+]?\s*{_DECIMAL})\s*\}}|\s*(?P<top1>\d))"
    rf"(?:\s*\{{\s*(?P<bottom>[-+]?\s*{_DECIMAL})\s*\}}|\s*(?P<bottom1>\d))",
    re.ASCII,
)
_SCIENTIFIC = re.compile(
    rf"(?:(?P<mantissa>[-+]?{_DECIMAL})\s*(?:[eE]|(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*)"
    r"|(?P<sign>[-+]?)10\s*\^\s*)"
    r"(?:[{(]\s*(?P<braced>[-+]?\d{1,4})\s*[)}]|(?P<exponent>[-+]?\d{1,4}))",
    re.ASCII,
)
_REPEATING = re.compile(
    r"(?P<sign>[-+]?)(?P<whole>\d*)\.(?P<fixed>\d*)\\overline\s*\{(?P<period>\d+)\}", re.ASCII
)
_PERCENT = re.compile(r"(?:\\?%|\\?\s*(?:\\text\s*\{\s*)?percent\s*\}?)$", re.IGNORECASE)
_CURRENCY = re.compile(
    r"^(?P<sign>[-+]?)\s*(?:\\?\$|[€£¥₹₩]|\\(?:euro|pounds)\b|(?:US\s?\\?\$|USD|EUR|GBP|INR|Rs\b\.?))\s*"
)
_CURRENCY_BEHIND = re.compile(r"(?<=\d)\s*(?:\\?\$|[€£¥₹₩])$")
_UNIT = re.compile(
    r"(?:\^\s*\{?\s*\\circ\s*\}?|°|\\degrees?\b)?\s*"
    r"(?P<words>(?:\\text\s*\{(?:[^{}]|\{[^{}]*\})*\}|[a-zA-Z.]|\\[,;: ]|[\s~]"
    r"|(?<=[a-zA-Z}])\s?(?:/|\\cdot)\s?(?=[a-zA-Z\\])"
    r"|(?<=[a-zA-Z}])\^\s*(?:\d|[-+]\d|\{\s*[-+]?\d\s*\}))*)$"
)
_LETTERS = re.compile(r"[a-zA-Z][a-zA-Z.]*")
_SHORT_UNITS = frozenset(("m", "g", "s", "h", "N", "J", "W", "V", "K", "C", "F", "L", "T", "A"))
_ATTACHED_UNITS = frozenset(("cm", "mm", "km", "kg", "mg", "ml", "ft", "mph", "m/s", "km/h", "eV"))
_NOT_UNITS = re.compile(
    r"pi|sqrt|sin|cos|tan|log|ln|exp|infinity|inf|over|plus|minus|times|divided|or|and|to|by|mod|"
    "base|choose|hundred|thousand|million|billion|trillion|dozen|half|halves|thirds?|quarters?|"
    r"fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|am|pm|"
    r"a\.m\.?|p\.m\.?|bc|ad|not|no|if|when|where|remainder|factorial|squared|cubed",
    re.IGNORECASE,
)


def parse_number(text: str) -> Fraction | None:
    """The exact value of a bare number (no unit, no percent sign), or None."""
    text = _SIGN_SPACE.sub(r"\1", text.strip().replace("−", "-"))
    if _PLAIN.fullmatch(text):
        return Fraction(text.rstrip(".") if text.endswith(".") else text)
    if _THOUSANDS.fullmatch(text):
        return parse_number(text.translate(_SEPARATORS))
    values = (parse(text) for parse in _PARSERS)
    return next((value for value in values if value is not None), None)


def canonical_number(text: str, *, drop_unit: bool = True) -> str | None:
    """`text` as an exact number in lowest terms (`3`, `-7/2`, `25%`), or None if it is none.

    Currency and a full stop at the end are dropped, and so is a unit if that is wished: a part of a
    list keeps it, because "7 hours, 30 minutes" is not "30 hours, 7 minutes".
    """
    text = text.strip().rstrip(".,;: ")
    percent = _PERCENT.search(text)
    if percent:
        text = text[: percent.start()].rstrip("\\, ~")
    elif drop_unit:
        text = _without_unit(text)
    text = _CURRENCY_BEHIND.sub("", _CURRENCY.sub(r"\g<sign>", text))
    value = parse_number(text)
    if value is None:
        return None
    return f"{value}%" if percent else str(value)


def is_unit(words: str) -> bool:
    """Whether the words behind a number may be dropped: "cm", "apples", "square feet"; "" too."""
    found = _LETTERS.findall(words)
    squared = len(found) > 1 and found[-1].lower() in ("squared", "cubed")
    return all(_is_unit_word(word) for word in (found[:-1] if squared else found))


def _is_unit_word(word: str) -> bool:
    return word in _SHORT_UNITS or (len(word) > 1 and not _NOT_UNITS.fullmatch(word))


def _without_unit(text: str) -> str:
    r"""The text before its unit. Letters that touch a number are a unit only in `\text` or where
    they are a common one, so that `5x` stays what it is.
    """
    match = _UNIT.search(text)
    if match is None:
        return text
    words = match["words"] or ""
    touching = match[0][:1].isalpha() and words.strip() not in _ATTACHED_UNITS
    if touching or not is_unit(words.replace("\\text", " ")):
        return text
    return text[: match.start()]


def _parse_ratio(text: str) -> Fraction | None:
    match = _RATIO.fullmatch(text) or _FRAC.fullmatch(text)
    if match is None:
        return None
    groups = match.groupdict()
    top = groups["top"] or groups.get("top1") or "0"
    bottom = groups["bottom"] or groups.get("bottom1") or "0"
    numerator, denominator = _decimal(top), _decimal(bottom)
    if denominator == 0 or (groups["whole"] and numerator < 0):
        return None
    value = Fraction(groups["whole"] or 0) + numerator / denominator
    return -value if groups["sign"] == "-" else value


def _decimal(text: str) -> Fraction:
    digits = text.replace(" ", "")
    return Fraction(digits.rstrip(".") if digits.endswith(".") else digits)


def _parse_scientific(text: str) -> Fraction | None:
    match = _SCIENTIFIC.fullmatch(text)
    if match is None:
        return None
    exponent = int(match["braced"] or match["exponent"])
    if abs(exponent) > MAX_EXPONENT:
        return None
    mantissa = _decimal(match["mantissa"] or f"{match['sign']}1")
    return mantissa * Fraction(10) ** exponent


def _parse_repeating(text: str) -> Fraction | None:
    match = _REPEATING.fullmatch(text)
    if match is None:
        return None
    fixed, period = match["fixed"], match["period"]
    value = Fraction(int(match["whole"] or 0))
    value += Fraction(int(fixed or 0), 10 ** len(fixed))
    value += Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
    return -value if match["sign"] == "-" else value


def _parse_magnitude(text: str) -> Fraction | None:
    match = _MAGNITUDE.fullmatch(text)
    if match is None or not is_unit(match["unit"]):
        return None
    count = parse_number(match["count"])
    return None if count is None else count * _MAGNITUDES[match["name"].lower()]


def _parse_words(text: str) -> Fraction | None:
    """`eighteen`, `twenty-five dollars`, `three hundred twelve`; None for other words."""
    if _WORD_NUMBER.fullmatch(text) is None:
        return None
    total = current = 0
    words = re.split(r"[\s-]+", text.lower())
    for place, word in enumerate(words):
        value = _WORD_VALUES.get(word)
        if value is not None:
            room = 100 if current % 100 == 0 else 10 if current % 10 == 0 else 0
            if place > 0 and not 0 < value < room:
                return None
            current += value
        elif word in _MAGNITUDES and 0 < current < 1000:
            current *= _MAGNITUDES[word]
            if word != "hundred":
                total, current = total + current, 0
        elif place == 0 or not is_unit(" ".join(words[place:])):
            return None
        else:
            break
    return Fraction(total + current)


_PARSERS = (_parse_ratio, _parse_scientific, _parse_repeating, _parse_magnitude, _parse_words)
