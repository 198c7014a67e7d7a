"""`docs/api.md` says of each field what the code does with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec.inspect as inspect
import pytest
from msgspec import Struct

from server.gateway.allowlist import DROPPED, OBEYED, REFUSED, ChatRequest, CompletionRequest
from server.gateway.messages.allowlist import (
    DROPPED_MESSAGES,
    OBEYED_MESSAGES,
    REFUSED_MESSAGES,
    CountRequest,
    MessagesRequest,
)
from server.gateway.responses.allowlist import (
    DROPPED_RESPONSES,
    OBEYED_RESPONSES,
    REFUSED_RESPONSES,
    ResponsesRequest,
)

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()
BOUNDS = ("gt", "ge", "lt", "le", "min_length", "max_length", "pattern")
Names = tuple[str, ...]
Route = tuple[type[Struct], Names, Names, dict[str, str]]
ROUTES: dict[str, Route] = {
    "/v1/chat/completions": (ChatRequest, DROPPED, OBEYED, REFUSED),
    "/v1/completions": (CompletionRequest, DROPPED, OBEYED, REFUSED),
    "/v1/responses": (ResponsesRequest, DROPPED_RESPONSES, OBEYED_RESPONSES, REFUSED_RESPONSES),
    "/v1/messages": (MessagesRequest, DROPPED_MESSAGES, OBEYED_MESSAGES, REFUSED_MESSAGES),
    "/v1/messages/count_tokens": (
        CountRequest,
        DROPPED_MESSAGES,
        OBEYED_MESSAGES,
        REFUSED_MESSAGES,
    ),
}


def table(heading: str) -> dict[str, str]:
    """Field and word of each row of the table under a heading."""
    section = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    [body] = [part for part in section if part.startswith(f"{heading}\n")]
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \| ([a-z ]+) \|", body, flags=re.MULTILINE)
    found = [(name, word) for names, word in rows for name in re.findall(r"`([a-z_]+)`", names)]
    assert len(found) == len(dict(found)), "a field has two rows"
    return dict(found)


def word_for(field: inspect.Field, dropped: Names, obeyed: Names) -> str:
    """What the code does with a field that it knows."""
    kinds = list(parts(field.type))
    if field.name in obeyed:
        return "set by us" if field.name == "model" else "obeyed by us"
    if all(is_nothing(kind) for kind in kinds):
        return "refused"
    if field.name in dropped:
        return "ignored"
    return "bounded" if any(is_bounded(kind) for kind in kinds) else "passed"


def parts(kind: inspect.Type) -> Iterator[inspect.Type]:
    """The kinds of value that a type is made of, without null."""
    if isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from parts(one)
    elif not isinstance(kind, inspect.NoneType):
        yield kind


def is_nothing(kind: inspect.Type) -> bool:
    """Whether the only value asks for nothing."""
    if isinstance(kind, inspect.LiteralType):
        return len(kind.values) == 1
    return getattr(kind, "max_length", None) == 0 or (
        isinstance(kind, inspect.IntType) and (kind.ge, kind.le) == (1, 1)
    )


def is_bounded(kind: inspect.Type) -> bool:
    """Whether a value may be refused for what it is."""
    if isinstance(kind, inspect.LiteralType | inspect.StructType):
        return True
    if isinstance(kind, inspect.ListType):
        return any(
            getattr(kind, bound) is not None for bound in BOUNDS if hasattr(kind, bound)
        ) or (is_bounded(kind.item_type))
    return any(getattr(kind, bound, None) is not None for bound in BOUNDS)


@pytest.mark.parametrize("heading", ROUTES)
def test_the_table_of_each_route_is_the_codes(heading: str):
    struct, dropped, obeyed, refused = ROUTES[heading]
    kind: Any = inspect.type_info(struct)
    told = {field.encode_name: word_for(field, dropped, obeyed) for field in kind.fields}
    told |= {name: "refused" for name in refused if name not in REFUSED and name not in told}
    assert table(heading) == told


def test_the_table_of_what_is_refused_everywhere_is_the_codes():
    told = {
        name: "set by us" if why == "is set by the server" else "refused"
        for name, why in REFUSED.items()
    }
    assert table("On every route") == told
