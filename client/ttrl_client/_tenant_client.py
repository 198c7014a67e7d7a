"""What a tenant can do with its API key beyond OpenAI's own clients: give feedback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import httpx

from ttrl_client import types
from ttrl_client._calls import Call, Retries
from ttrl_client._sending import AsyncSender, Sender, async_method, connection, sync_method

PREFIX: Final = "/v1"
DEFAULT_TIMEOUT_S: Final = 30.0


def feedback(
    completion_id: str,
    *,
    score: float | None = None,
    correct_answer: str | None = None,
    choice: int = 0,
    comment: str | None = None,
) -> Call[types.Feedback]:
    """Say how good an answer was (`score` in [0, 1]), what the correct one is, or both. It replaces
    what was said before about the same answer. `choice` is meant where `n` asked for several.
    """
    body = types.FeedbackCreate(
        id=completion_id,
        score=score,
        correct_answer=correct_answer,
        choice=choice,
        comment=comment,
    )
    parse = types.Feedback.model_validate_json
    return Call("POST", "/feedback", parse, body, prefix=PREFIX, is_idempotent=True)


def feedback_batch(items: Sequence[types.FeedbackCreate]) -> Call[types.FeedbackBatch]:
    """Give feedback to up to a hundred answers at once. Ids that are not in the tenant's log are in
    `unknown`; feedback to the others is stored.
    """
    body = types.FeedbackBatchCreate(items=list(items))
    parse = types.FeedbackBatch.model_validate_json
    return Call("POST", "/feedback/batch", parse, body, prefix=PREFIX, is_idempotent=True)


class TenantClient(Sender):
    """Feedback, blocking. Close it, or use it in a `with` block. Thread-safe.

    Every method raises a `TTRLError` of the tree in `_errors`, and `ValueError` for an argument
    that the server would refuse anyway.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`base_url` (without `/v1`) and `api_key` default to `TTRL_URL` and `TTRL_API_KEY`."""
        options = connection(base_url, api_key, timeout_s, kind="API")
        super().__init__(httpx.Client(**options, transport=transport), retries)

    feedback = sync_method(feedback)
    feedback_batch = sync_method(feedback_batch)


class AsyncTenantClient(AsyncSender):
    """Feedback, for asyncio. Close it, or use it in an `async with` block.

    Every method raises a `TTRLError` of the tree in `_errors`, and `ValueError` for an argument
    that the server would refuse anyway.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`base_url` (without `/v1`) and `api_key` default to `TTRL_URL` and `TTRL_API_KEY`."""
        options = connection(base_url, api_key, timeout_s, kind="API")
        super().__init__(httpx.AsyncClient(**options, transport=transport), retries)

    feedback = async_method(feedback)
    feedback_batch = async_method(feedback_batch)
