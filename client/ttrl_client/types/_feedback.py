"""Feedback: what a tenant knows about answers that it was given."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field, model_validator

from ttrl_client.types._base import Wire, WireInput

COMPLETION_ID = r"^[A-Za-z0-9._:-]{1,64}$"
MAX_FEEDBACK_TEXT = 4096  # characters of a correct answer, or of a comment
MAX_FEEDBACK_ITEMS = 100  # in one request
MAX_CHOICE = 2**31 - 1


class FeedbackCreate(WireInput):
    """What is known about one answer: a score, the correct answer, or both. It replaces what was
    said before about the same answer, whole.
    """

    id: str = Field(
        pattern=COMPLETION_ID, description="The completion's `id`, as the answer carried it."
    )
    score: float | None = Field(
        default=None,
        ge=0,
        le=1,
        strict=True,
        allow_inf_nan=False,
        description="How good the answer was: 0 is useless, 1 is right.",
    )
    correct_answer: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_FEEDBACK_TEXT,
        description="The right answer to this prompt, bare or in a text that ends with it.",
    )
    choice: int = Field(
        default=0,
        ge=0,
        le=MAX_CHOICE,
        strict=True,
        description="Index of the choice that is meant, where `n` asked for several.",
    )
    comment: str | None = Field(
        default=None,
        max_length=MAX_FEEDBACK_TEXT,
        description="For people: kept, and never learned from.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> FeedbackCreate:
        if self.score is None and self.correct_answer is None:
            raise ValueError("a `score` or a `correct_answer` is needed")
        if self.correct_answer is not None and not self.correct_answer.strip():
            raise ValueError("`correct_answer` is blank")
        return self


class FeedbackBatchCreate(WireInput):
    """Feedback to several answers. Of two about the same answer, the last one counts."""

    items: list[FeedbackCreate] = Field(
        min_length=1, max_length=MAX_FEEDBACK_ITEMS, description="Feedback to one answer each."
    )


class Feedback(Wire):
    """Feedback as it is stored."""

    id: str = Field(description="The completion's id.")
    object: str = Field(default="feedback", description="Always `feedback`.")
    choice: int = Field(description="Index of the choice that is meant.")
    score: float | None = Field(description="In [0, 1].")
    correct_answer: str | None = Field(description="The right answer, as it was given.")
    comment: str | None = Field(description="For people.")
    adapter_version: int = Field(description="The version that gave the answer.")
    created_at: datetime = Field(description="When there was first feedback to this answer.")
    updated_at: datetime = Field(description="When it was last replaced.")


class FeedbackBatch(Wire):
    """What was stored of a batch, and what was not."""

    object: str = Field(default="list", description="Always `list`.")
    data: list[Feedback] = Field(description="What is stored now, in the order of the request.")
    unknown: list[str] = Field(
        description="Completion ids that are not in this tenant's log; nothing is stored for them."
    )
