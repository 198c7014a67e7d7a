r"""LaTeX and Unicode brought to one spelling, before anything is read from it.

`\dfrac`, `\tfrac` and `½` become `\frac`, `\mathrm`, `\mbox` and the like `\text`, `\left(` a
plain bracket, "−" a minus. What only changes the looks of an answer goes: spaces, sizes, colours,
dollars, bold, a box, `\text` around all of it, a full stop.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from adapters.answers.spec import MAX_ANSWER

_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ",
    "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "⁄": "/", "∕": "/", "π": r"\pi ", "∞": r"\infty ",
    "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", "º": r"^\circ ",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "φ": r"\phi ",
    "ω": r"\omega ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "′": "'",
    "⟨": "(", "⟩": ")", "〈": "(", "〉": ")", "≈": r"\approx ",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}", "⅕": r"\frac{1}{5}", "⅙": r"\frac{1}{6}", "⅛": r"\frac{1}{8}",
    "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}",
    "。": ".", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\x0c": r"\f",  # of a careless "\frac"
}  # fmt: skip
_TRANSLATE = str.maketrans(_SYMBOLS)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")

_FACES = (
    "mbox|hbox|textbf|textit|textrm|textsf|texttt|textnormal|textup|emph|mathrm|mathbf|mathit|"
    r"mathsf|mathtt|boldsymbol|bm|pmb|bold|rm|underline|uline|operatorname\*?"
)
_COMMANDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\{2,3}(?=(?:[dtc]?frac|sqrt|pi|text|cdot|times|left|right|infty|boxed|pm|in|cup)\b)",
         r"\\"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (rf"\\(?:{_FACES})(?=\s*\{{)", r"\\text"),
        (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|phantom\{\})"
         r"(?![a-zA-Z])\s*\.?", ""),
        (r"\\text\s*\{\s*(\\?%|,)\s*\}", r"\1"),
        (r"\\[hv]space\*?\s*\{[^{}]{0,20}\}|\\(?:thin|med|thick)space(?![a-zA-Z])", " "),
        (r"\{\s*\\(?:rm|bf|it|sf|tt)(?![a-zA-Z])([^{}]*)\}", r"\\text{\1}"),
        (r"\\\\\s*\[[^\[\]]{0,12}\]|\\cr(?![a-zA-Z])", r"\\\\"),
        (r"\\bigcup(?![a-zA-Z])", r"\\cup"),
        (r"\\?#(?=\s*\d)", ""),
        (r"(?<=\d)\s*\^?\s*\{?\s*\\text\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}?", ""),
        (r"(?<=\d)(?:st|nd|rd|th)\b", ""),
        (r"(^|\\cup|\\in)\s*\](?=[^\[\]()]*,)", r"\1("),
        (r"(,[^\[\]()]*)\[(?=\s*(?:$|\\cup))", r"\1)"),
        (r"\\(?:text)?color\s*\{[^{}]{0,40}\}", ""),
        (r",\s*\\!\s*", ","),
        (r"\\\\\s*$", ""),
        (r"√\s*([0-9]+|[a-zA-Z])", r"\\sqrt{\1}"),
        (r"√", r"\\sqrt "),
        (r"(?<=\d)\\[,;: !](?=\d{3}(?!\d))", ","),
        (r"(?<!\\)\\(?:!|,|;|:|>| )|\\q?quad(?![a-zA-Z])|~", " "),
        (r"\s*(?:\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<=[\s,$])(?:and|or)(?=[\s$]))\s*", ","),
        (r",\s*,", ","),
        (r"\{,\}", ","),
        (r"\\(?:leq|leqslant)(?![a-zA-Z])|<=", r"\\le"),
        (r"\\(?:geq|geqslant)(?![a-zA-Z])|>=", r"\\ge"),
        (r"\\neq(?![a-zA-Z])|!=", r"\\ne"),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\colon(?![a-zA-Z])\s*", ":"),
        (r"(?<=[^\s$(])\s*\\approx(?![a-zA-Z]).*", ""),
        (r"(?i)\\text\s*\{\s*a\.?\s?m\.?\s*\}|(?<=\d)\s*a\.?\s?m\.?(?=\W|$)", " am"),
        (r"(?i)\\text\s*\{\s*p\.?\s?m\.?\s*\}|(?<=\d)\s*p\.?\s?m\.?(?=\W|$)", " pm"),
        (r"(?<=\d)\{:\}(?=\d)", ":"),
        (r"_\{?\s*\\text\s*\{\s*(\w{1,9})\s*\}\s*\}?", r"_{\1}"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\(?:varnothing)(?![a-zA-Z])", r"\\emptyset"),
        (r"\\(?:degrees?|deg)(?![a-zA-Z])", r"^\\circ"),
        (r"\\(?:R|reals|Reals)(?![a-zA-Z])|\\text\{R\}(?=$)", r"\\mathbb{R}"),
        (r"\\begin\{(?:[bB]|small)?(?:matrix|array)\}(?:\s*\{[lcr| ]{0,20}\})?",
         r"\\begin{pmatrix}"),
        (r"\\end\{(?:[bB]|small)?(?:matrix|array)\}", r"\\end{pmatrix}"),
        (r"\\\\\s*\\end\{pmatrix\}", r"\\end{pmatrix}"),
        (r"(?<![\\a-zA-Z])sqrt\s*\(([^()]{1,80})\)", r"\\sqrt{\1}"),
        (r"(?<![\\a-zA-Z])(pi|infinity)(?![a-zA-Z])(?!\s+[a-zA-Z])", r"\\\1 "),
        (r"\\infinity", r"\\infty"),
        (r"\\sqrt\s*(?!\[)([0-9a-zA-Z])", r"\\sqrt{\1}"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s+(\w)\s*(\w)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\w)\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*(\{[^{}]*\})\s*(\w)", r"\\frac\1{\2}"),
        (r"\\frac\s*(\d)\s*(\\?[a-zA-Z]+)", r"\\frac{\1}{\2}"),
        (r"([_^])\s*\{\s*(\w)\s*\}", r"\1\2"),
        (r"\*\*(?=\s*[-\d(a-z])", "^"),
    )
)  # fmt: skip
_BASES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "twelve": 12, "sixteen": 16,
}  # fmt: skip
_BASE = re.compile(rf"_\{{(?P<name>{'|'.join(_BASES)})\}}")
_DELIMITER = re.compile(r"\\(?:[lr](?:brace|brack|angle|vert)|vert|mid)(?![a-zA-Z])")
_DELIMITERS = {
    r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]", r"\langle": "(",
    r"\rangle": ")", r"\lvert": "|", r"\rvert": "|", r"\vert": "|", r"\mid": "|",
}  # fmt: skip
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_WRAPPERS = (
    (r"\(", r"\)"), (r"\[", r"\]"), ("$$", "$$"), ("$", "$"), ("**", "**"), ("`", "`"),
    ('"', '"'), ("“", "”"), ("``", "''"),
)  # fmt: skip
_BRACKETED_MATRIX = re.compile(
    r"[(\[]\s*(?P<matrix>\\begin\{pmatrix\}.*\\end\{pmatrix\})\s*[)\]]", re.DOTALL
)
_TEXT_ONLY = re.compile(r"\\text\s*\{([^{}]*)\}")
_ANSWER_IS = re.compile(
    r"(?:\\text\s*\{)?\s*(?:the\s+)?(?:final\s+)?answer\s*(?:is\b|:|=)\s*:?\s*\}?", re.I
)
_APPROXIMATE = re.compile(r"(?:\\approx(?![a-zA-Z])|\\simeq|\\sim(?![a-zA-Z])|=|:)\s*")


@lru_cache(maxsize=8192)
def clean(answer: str) -> str:
    """The answer as plain LaTeX: no wrapping, no decoration, one spelling of each command."""
    text = _CONTROLS.sub("", _SURROGATES.sub("", answer[:MAX_ANSWER]))
    text = _SUPERSCRIPT.sub(_raised, text).translate(_TRANSLATE)
    text = unicodedata.normalize("NFKC", text)[: 2 * MAX_ANSWER]
    for pattern, replacement in _COMMANDS:
        text = pattern.sub(replacement, text)
    text = _BASE.sub(lambda match: f"_{_BASES[match['name']]}", text)
    text = _DELIMITER.sub(lambda match: _DELIMITERS[match[0]], text)
    previous = None
    while previous != text:
        previous = text
        text = _unwrap(text.strip().rstrip(".,;: \\"))
    return text


def _raised(match: re.Match[str]) -> str:
    power = match[0].translate(_SUPERSCRIPTS)
    return f"^{power}" if len(power) == 1 else f"^{{{power}}}"


def _unwrap(text: str) -> str:
    for left, right in _WRAPPERS:
        inner = text[len(left) : -len(right)]
        if text.startswith(left) and text.endswith(right) and left not in inner:
            return inner
    match = _TEXT_ONLY.fullmatch(text)
    if match:
        return match[1]
    if text.startswith(r"\boxed{") and text.endswith("}"):
        return text[len(r"\boxed{") : -1]
    if text.startswith("{") and text.endswith("}") and "{" not in text[1:] and len(text) > 2:
        return text[1:-1]
    match = _BRACKETED_MATRIX.fullmatch(text)
    if match:
        return match["matrix"]
    for prefix in (_ANSWER_IS, _APPROXIMATE):
        match = prefix.match(text)
        if match:
            return text[match.end() :]
    return text
