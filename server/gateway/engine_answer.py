"""An engine's answer from its first byte on. Until then the request may still go elsewhere."""

from __future__ import annotations

from typing import Final

from server.errors import EngineUnavailable
from server.gateway.engine_errors import engine_error
from server.gateway.engine_http import EngineResponse

MAX_ANSWER_BYTES: Final = 64 * 2**20
ERROR_EVENT: Final = b'data: {"error"'


async def begun(response: EngineResponse) -> EngineResponse:
    """Wait for the first byte.

    vLLM sends a stream's head before it knows whether it can answer, so that what should be a
    status of 503 comes as the first event.

    Raises:
        EngineUnavailable: it says that the engine cannot answer now.
        EngineGone: the connection broke.
    """
    first = await response.first()
    if first.startswith(ERROR_EVENT):
        error = engine_error(500, first.partition(b"\n")[0].removeprefix(b"data: "), hidden={})
        if isinstance(error, EngineUnavailable):
            raise error
    return response
