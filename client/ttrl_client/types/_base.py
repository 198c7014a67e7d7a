"""What all wire types share."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Wire(BaseModel):
    """Base of all wire types that the server sends."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class WireInput(BaseModel):
    """Base of all wire types that the server receives: an unknown field is an error, not a silent
    no-op, and so is a number that is not finite, which JSON writes as 1e999.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Page(Wire, Generic[T]):
    """A page of a list, newest first."""

    model_config = ConfigDict(json_schema_extra={"description": "A page of a list, newest first."})

    items: list[T] = Field(description="Newest first.")
    next: str | None = Field(
        description="Pass it as `before` for the page after this one; null on the last page."
    )


class ErrorDetail(Wire):
    """What went wrong, in OpenAI's words."""

    message: str = Field(description="For people.")
    type: str = Field(description="invalid_request_error, rate_limit_error or server_error.")
    param: str | None = Field(default=None, description="The field that is to blame, dotted.")
    code: str | None = Field(default=None, description="A stable code for programs.")


class ErrorBody(Wire):
    """Every error answer."""

    error: ErrorDetail = Field(description="What went wrong.")
