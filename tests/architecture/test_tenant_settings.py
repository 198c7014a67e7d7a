"""`docs/tenant-settings.md` says of each setting what the code says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from ttrl_client.types import TenantSettings

TEXT = (Path(__file__).parents[2] / "docs" / "tenant-settings.md").read_text(encoding="utf-8")


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """All settings by their dotted names."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def shown(value: Any) -> str:
    return "—" if value is None else f"`{json.dumps(value)}`"


def value_of(settings: BaseModel, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def row(name: str, field: FieldInfo) -> str:
    ours = value_of(TenantSettings(), name)
    published = value_of(TenantSettings.model_validate({"learning": {"preset": "paper"}}), name)
    default = shown(ours)
    if published != ours and name != "learning.preset":
        default += f"; `paper`: {shown(published)}"
    return f"| `{name}` | {default} | {field.description} |"


def test_every_setting_stands_with_its_default_and_its_meaning() -> None:
    rows = [row(name, field) for name, field in fields(TenantSettings)]
    missing = [one for one in rows if one not in TEXT.splitlines()]
    assert missing == [], "\n".join(missing)


def test_no_setting_stands_that_is_not_there() -> None:
    known = {name for name, _ in fields(TenantSettings)}
    told = [line.split("`")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    assert [name for name in told if name not in known] == []


def test_the_example_is_one() -> None:
    example = TEXT.partition("```json\n")[2].partition("```")[0]
    TenantSettings.model_validate_json(example)
