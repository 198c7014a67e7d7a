"""A tenant's kind of answer, as the settings say it."""

from __future__ import annotations

from ttrl_client.types import TenantSettings

from adapters.answers import AnswerSpec


def spec_of(settings: TenantSettings) -> AnswerSpec:
    """What is looked for in the tenant's responses."""
    options = settings.answer_options
    return AnswerSpec(
        kind=settings.answer,
        labels=tuple(options.labels),
        field=options.field,
        pattern=options.pattern,
        entry_point=options.entry_point,
    )
