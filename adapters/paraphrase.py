"""The model's own rewording of a question, as another view of it (Self-Harmony, arXiv 2511.01191).

Nothing says that a rewording keeps the answer, so everything is kept that an answer hangs on:
numbers, quoted strings, code and LaTeX word for word, and the lines of a multiple choice in their
order. A rewording that loses one of them, or brings a new number (the answer, as a rule), is
dropped: a view less costs little, a view of another question spoils the vote. Our deviation: the
paper takes what the model writes.
"""

from __future__ import annotations

import re
from collections import Counter

INSTRUCTION = (
    "Rewrite the message below in other words, so that it asks for exactly the same. Keep every "
    "number, formula, quotation, name and answer option as it is. Do not answer it. Reply with the "
    "rewritten message only."
)
MAX_QUESTION = 8192  # characters; a longer one is not reworded
MAX_GROWTH = 4  # times as long as the question

_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
# Where the two marks of a pair differ, no pattern runs past another opening one: it would look
# through the rest of the text from each of them.
_LITERAL = re.compile(
    r"""
      \$\$.+?\$\$ | \$[^$\n]+\$                                 # LaTeX between marks
    | \\\((?:(?!\\[()]).)+\\\) | \\\[(?:(?!\\[\[\]]).)+\\\]
    | \\[A-Za-z]+(?:\{[^{}]*\})*                                # and without: \frac{1}{2}
    | ```.+?``` | `[^`\n]+`                                     # code
    | "[^"\n]+" | “[^“”\n]+” | «[^«»\n]+» | (?<!\w)'[^'\n]+'(?!\w)  # quotations
    """,
    re.VERBOSE | re.DOTALL,
)
_OPTION = re.compile(r"^[ \t]*\(?[A-Za-z0-9][).:][ \t]+\S.*$", re.MULTILINE)


def accept(question: str, written: str) -> str | None:
    """The rewording without the space around it; None: it is no other view of the question."""
    text = written.strip()
    if not text or text == question.strip() or len(text) > MAX_GROWTH * len(question):
        return None
    if Counter(_NUMBER.findall(text)) != Counter(_NUMBER.findall(question)):
        return None
    if any(literal not in text for literal in _LITERAL.findall(question)):
        return None
    if _options(text) != _options(question):
        return None
    return text


def _options(text: str) -> list[str]:
    return [line.strip() for line in _OPTION.findall(text)]
