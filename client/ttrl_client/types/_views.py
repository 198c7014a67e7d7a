"""Other phrasings of a tenant's questions."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, model_validator

from ttrl_client.types._base import WireInput

BRACES = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")


class View(WireInput):
    """Other phrasings of the same question that keep its answer.

    A prompt whose last user message matches `pattern` (a regular expression with named groups) is
    asked through each of `templates`, in which `{name}` stands for the group of that name.
    """

    pattern: str = Field(
        max_length=500, description="Regular expression with named groups; searched, not anchored."
    )
    templates: list[Annotated[str, Field(min_length=1, max_length=2000)]] = Field(
        min_length=1, max_length=8, description="Phrasings with `{group}` placeholders."
    )

    @model_validator(mode="after")
    def _placeholders_exist(self) -> View:
        try:
            groups = re.compile(self.pattern).groupindex
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"pattern: {error}") from None
        for template in self.templates:
            _check_template(template, frozenset(groups))
        return self


def _check_template(template: str, groups: frozenset[str]) -> None:
    """Refuse braces around anything but a group's name: `{a.b}`, `{a!r}` and `{a:>9}` are no names.

    Not by `str.format`, which reaches attributes and pads to any width; servers do not use it.
    """
    rest = BRACES.sub(lambda match: "" if match[1] in (None, *groups) else match[0], template)
    if "{" in rest or "}" in rest:
        raise ValueError(f"template {template!r}: only a group of the pattern may stand in braces")
