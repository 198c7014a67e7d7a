"""Everything that is decided per tenant."""

from __future__ import annotations

import re
from typing import Annotated, Literal

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


class Schedule(WireInput):
    """When cycles start by themselves. All unset: only when asked. Several may be set."""

    interval_s: int | None = Field(default=None, ge=10, description="Every so many seconds.")
    cron: str | None = Field(
        default=None, max_length=100, description="A crontab line with five fields, in UTC."
    )
    min_new_queries: int | None = Field(
        default=None,
        ge=1,
        description="After so many new eligible queries since the last cycle started.",
    )


class Learning(WireInput):
    """How a cycle samples and learns."""

    steps: int = Field(default=20, ge=1, le=1000, description="Optimizer updates in a cycle.")
    prompts_per_step: int = Field(
        default=8, ge=1, le=256, description="Prompts sampled for one update."
    )
    samples_per_prompt: int = Field(
        default=33, ge=2, le=256, description="Votes of one prompt, split over its views."
    )
    max_tokens: int = Field(
        default=512, ge=1, le=32768, description="Longest sampled answer, in tokens."
    )
    temperature: float = Field(default=1.0, gt=0, le=2, description="Sampling temperature.")
    learning_rate: float = Field(
        default=1e-4, gt=0, le=1, description="Constant learning rate of AdamW."
    )
    max_prompts: int = Field(
        default=512, ge=1, le=100_000, description="Most prompts that a cycle trains on."
    )
    min_prompts: int = Field(
        default=8, ge=1, description="Fewer eligible prompts than this: the cycle is skipped."
    )
    max_visits: int = Field(
        default=40,
        ge=1,
        description="Most updates that one prompt may take part in, over all cycles.",
    )
    estimator: Literal["harmony", "majority"] = Field(
        default="harmony",
        description="How votes become a label; harmony equals majority for a prompt with one view.",
    )
    min_answers: int = Field(
        default=8, ge=1, description="Fewer answers than this in a group: it abstains."
    )


class Gate(WireInput):
    """What a candidate must prove on held-out prompts. All conditions must hold."""

    enabled: bool = Field(
        default=True, description="False promotes every candidate. Not recommended."
    )
    probe_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="Share of prompts that is never trained on."
    )
    probe_prompts: int = Field(
        default=32, ge=1, le=1000, description="Most probe prompts in one evaluation."
    )
    min_probe_prompts: int = Field(
        default=8, ge=1, description="Fewer probe prompts than this: the cycle is skipped."
    )
    samples_per_prompt: int = Field(
        default=24, ge=2, le=256, description="Samples of a probe prompt, split over its views."
    )
    min_view_agreement: float = Field(
        default=0.7, ge=0, le=1, description="Labels are trusted when views agree this often."
    )
    min_gain: float = Field(
        default=0.03, ge=-1, le=1, description="Least rise of the agreement with the labels."
    )
    max_flip_rate: float = Field(
        default=0.35, ge=0, le=1, description="Most probe labels that may change."
    )
    max_answer_rate_drop: float = Field(
        default=0.05, ge=0, le=1, description="Most that the share of parsable answers falls."
    )
    max_length_ratio: float = Field(
        default=2.0, ge=1, description="Most that the mean length grows or shrinks, as a factor."
    )
    max_kl: float = Field(default=1.0, gt=0, description="Most KL to the base model, nats a token.")


class TenantSettings(WireInput):
    """Everything that is decided per tenant."""

    answer: Literal["auto", "math", "number", "choice"] = Field(
        default="auto", description="Kind of answer to vote on."
    )
    views: list[View] = Field(
        default_factory=list[View],
        max_length=32,
        description="Other phrasings of questions; the first pattern that matches counts.",
    )
    schedule: Schedule = Field(default=Schedule(), description="When cycles start.")
    learning: Learning = Field(default=Learning(), description="How a cycle learns.")
    gate: Gate = Field(default=Gate(), description="What a candidate must prove.")
