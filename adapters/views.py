"""Other phrasings of one question, which keep its answer.

A view's pattern and templates come from a tenant. Patterns run in `adapters.pattern`, in time
linear in the prompt and within a budget of steps, so there is nothing to kill. Templates are filled
by plain substitution, never by `str.format`, and a phrasing is bounded in length.

Two kinds of view need no template: a system message in front of a chat that has none (`instruct`),
and the model's own rewording (`adapters.paraphrase`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from adapters.pattern import Steps, UnsupportedPattern, compile_pattern

__all__ = ["InvalidView", "View", "canonical", "check", "has_view", "instruct", "rephrase"]

Chat = list[dict[str, str]]

SYSTEM_ROLES = frozenset({"system", "developer"})
MAX_PROMPT = 8192  # characters; a longer prompt is asked as it is
MAX_PHRASING = 16_384
MAX_STEPS = 65_536  # of the matcher, for one prompt over all views: some 20 ms
_PIECE = re.compile(r"(?P<escape>\{\{|\}\})|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<text>[^{}]+)")


class InvalidView(ValueError):
    """A view that cannot be used; the message says why and is safe to show."""


@dataclass(frozen=True, slots=True)
class View:
    """A pattern with named groups, and templates in which `{name}` is the group of that name."""

    pattern: str
    templates: tuple[str, ...]


def check(view: View) -> None:
    """Refuse a view that `rephrase` would leave out.

    Raises:
        InvalidView: the pattern is not supported, or a template names a group that it lacks.
    """
    try:
        pattern = compile_pattern(view.pattern)
    except UnsupportedPattern as error:
        raise InvalidView(f"pattern: {error}") from None
    for template in view.templates:
        for literal, name in _pieces(template):
            if literal is None and name not in pattern.groups:
                raise InvalidView(f"template: the pattern has no group {name!r}")


def rephrase(prompt: str, views: Sequence[View]) -> tuple[str, ...]:
    """The prompt as asked, then the templates of the first view that matches it, without doubles.

    Just `(prompt,)` if none matches. A view that `check` refuses matches nothing.
    """
    found = _match(prompt, views)
    if found is None:
        return (prompt,)
    view, groups = found
    phrasings = (_render(template, groups) for template in view.templates)
    return tuple(dict.fromkeys((prompt, *(text for text in phrasings if text))))


def has_view(prompt: str, views: Sequence[View]) -> bool:
    """Whether one of the views matches the prompt."""
    return _match(prompt, views) is not None


def instruct(chat: Chat, instructions: Sequence[str]) -> tuple[Chat, ...]:
    """The chat under each instruction as its system message; nothing if it has one of its own,
    which is not ours to replace.
    """
    if any(message["role"] in SYSTEM_ROLES for message in chat):
        return ()
    return tuple([{"role": "system", "content": text}, *chat] for text in instructions)


def canonical(prompt: str, views: Sequence[View]) -> str:
    """One text for all phrasings of a question: the first template filled, or the prompt itself."""
    found = _match(prompt, views)
    if found is None:
        return prompt
    view, groups = found
    return _render(view.templates[0], groups) or prompt


def _match(prompt: str, views: Sequence[View]) -> tuple[View, dict[str, str]] | None:
    """The first view that matches, with its groups."""
    if len(prompt) > MAX_PROMPT:
        return None
    steps = Steps(MAX_STEPS)
    for view in views:
        try:
            pattern = compile_pattern(view.pattern)
        except UnsupportedPattern:
            continue
        groups = pattern.search(prompt, steps)
        if groups is not None and view.templates:
            return view, groups
    return None


def _render(template: str, groups: Mapping[str, str]) -> str | None:
    """The template filled; None if it is invalid or becomes too long."""
    parts: list[str] = []
    length = 0
    try:
        for literal, name in _pieces(template):
            part = literal if literal is not None else groups[name]
            length += len(part)
            if length > MAX_PHRASING:
                return None
            parts.append(part)
    except (InvalidView, KeyError):
        return None
    return "".join(parts)


def _pieces(template: str) -> Iterator[tuple[str | None, str]]:
    """(text, "") and (None, group name) in turn.

    Raises:
        InvalidView: there is anything else in braces than a name.
    """
    position = 0
    while position < len(template):
        match = _PIECE.match(template, position)
        if match is None:
            raise InvalidView(
                f"template: only {{name}}, {{{{ and }}}} may stand in braces: "
                f"{template[position : position + 40]!r}"
            )
        position = match.end()
        if match["name"]:
            yield None, match["name"]
        else:
            yield match["text"] or match["escape"][0], ""
