"""Translates an engine's refusals into our errors: OpenAI's shape, and nothing internal."""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

from server.errors import (
    BadRequest,
    BodyTooLarge,
    EngineFailed,
    EngineUnavailable,
    Overloaded,
    PromptTooLong,
    TTRLError,
)

MAX_MESSAGE = 600
_PATH = re.compile(r"(?<![\w/:.<])/(?:[\w.+@-]+/)+[\w.+@-]*")
_CONTEXT = re.compile(r"maximum context length|max_model_len|maximum model length", re.IGNORECASE)
_DYING = b"EngineCore"  # what vLLM answers to everybody while its engine process is gone
_PARAM = re.compile(r"[\w.\[\]]{1,100}")


def engine_error(status: int, body: bytes, *, hidden: dict[str, str]) -> TTRLError:
    """The error to answer with for an engine's error response or error event.

    `hidden` maps internal names to what clients may read instead. What the engine says about the
    request (4xx) is passed on; what it says about itself (5xx) is not.
    """
    error = _error_object(body)
    code = error.get("code")
    if isinstance(code, int) and 400 <= code <= 599:
        status = code  # of an error event, whose response said 200
    if status == 429:
        return Overloaded("The engine has too many requests.", retry_after_s=1)
    if status == 503 or _DYING in body:
        return EngineUnavailable("The engine is overloaded or starting.", retry_after_s=2)
    if not 400 <= status < 500 or status in (401, 403, 404, 405):
        return EngineFailed("The engine failed on this request.")
    message = _clean(str(error.get("message") or "The engine refused this request."), hidden)
    if status == 413:
        return BodyTooLarge(message)
    param = error.get("param")
    if not isinstance(param, str) or not _PARAM.fullmatch(param):
        param = None
    return (PromptTooLong if _CONTEXT.search(message) else BadRequest)(message, param=param)


def _error_object(body: bytes) -> dict[str, Any]:
    """The object that describes the error: under `error`, or the body itself."""
    try:
        decoded: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(decoded, dict):
        inner: Any = cast(dict[str, Any], decoded).get("error", decoded)
        if isinstance(inner, dict):
            return cast(dict[str, Any], inner)
        return {"message": inner} if isinstance(inner, str) else {}
    return {}


def _clean(message: str, hidden: dict[str, str]) -> str:
    for name, public in hidden.items():
        message = message.replace(name, public)
    return _PATH.sub("<path>", message)[:MAX_MESSAGE]
