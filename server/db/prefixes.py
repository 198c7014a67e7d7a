"""What a tenant's prompts begin with."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Query

NUM_LOOKED_AT = 50
NUM_PREFIXES = 2
INSTRUCTIONS = ("system", "developer")


async def common_prefixes(session: AsyncSession, tenant_id: int) -> list[dict[str, Any]]:
    """The instructions, with the tools, that the tenant's last chats began with most often:
    `messages`, and `tools` where there are any. Chats without instructions have none.
    """
    statement = (
        select(Query.prompt, Query.params)
        .where(Query.tenant_id == tenant_id)
        .order_by(Query.created_at.desc())
        .limit(NUM_LOOKED_AT)
    )
    rows = await session.execute(statement)
    found = Counter(json.dumps(p, sort_keys=True) for row in rows if (p := _prefix(*row)))
    return [json.loads(prefix) for prefix, _ in found.most_common(NUM_PREFIXES)]


def _prefix(prompt: list[Any], params: dict[str, Any]) -> dict[str, Any] | None:
    messages: list[dict[str, Any]] = []
    for message in prompt:
        if not isinstance(message, dict):
            break
        fields = cast(dict[str, Any], message)
        if fields.get("role") not in INSTRUCTIONS:
            break
        messages.append(fields)
    if not messages:
        return None
    tools = params.get("tools")
    return {"messages": messages} | ({"tools": tools} if tools else {})
