"""instructor: models out of answers, by a schema and by a tool."""

from __future__ import annotations

import instructor
import openai
from checking import KEY, MESSAGES, MODEL, V1, Checks
from pydantic import BaseModel, Field

check = Checks("instructor")


class Sum(BaseModel):
    """What is asked for."""

    a: int = Field(ge=0, le=99)
    b: int = Field(ge=0, le=99)


def client(mode: instructor.Mode) -> instructor.Instructor:
    return instructor.from_openai(openai.OpenAI(base_url=V1, api_key=KEY, max_retries=0), mode=mode)


@check("JSON schema")
def _() -> None:
    found = client(instructor.Mode.JSON_SCHEMA).chat.completions.create(
        model=MODEL, messages=MESSAGES, response_model=Sum, max_retries=1, max_tokens=128
    )
    assert isinstance(found, Sum), found


@check("tools")
def _() -> None:
    found, raw = client(instructor.Mode.TOOLS).chat.completions.create_with_completion(
        model=MODEL, messages=MESSAGES, response_model=Sum, max_retries=1, max_tokens=128
    )
    assert isinstance(found, Sum), found
    assert raw.id.startswith("chatcmpl-"), raw


@check("partial, streamed")
def _() -> None:
    pieces = list(
        client(instructor.Mode.JSON_SCHEMA).chat.completions.create_partial(
            model=MODEL, messages=MESSAGES, response_model=Sum, max_retries=1, max_tokens=128
        )
    )
    assert pieces, "nothing came"
    assert pieces[-1].a is not None, pieces


check.run()
