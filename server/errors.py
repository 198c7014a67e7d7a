"""The error tree: each error knows its HTTP status and OpenAI's `type` and `code`, and is rendered
in one place. On Anthropic's routes it is rendered in Anthropic's shape.

TTRLError
 +- BadRequest 400           malformed or refused input
 |   +- UnknownModel 404     also another tenant's adapter
 |   +- NotFound 404
 |   |   +- NotServed 404   a route of OpenAI's that this server does not have
 |   +- MethodNotAllowed 405
 |   +- Conflict 409
 |   +- BodyTooLarge 413
 |   +- BodyTooSlow 408
 |   +- HeadersTooLarge 431
 |   +- PromptTooLong 400
 +- Unauthorized 401
 +- Forbidden 403
 +- Overloaded 429           more than this tenant may have
 +- Unavailable 503          the engine or the database is away; carries Retry-After
 |   +- EngineUnavailable
 |   |   +- EngineSilent     it took too long to answer
 |   +- ServerFull           more than the server can take from all tenants together
 |   +- LogUnavailable
 +- EngineFailed 502         the engine answered something that makes no sense
 |   +- AdapterDamaged 409   a version's files are not what was published
 +- ConfigurationError       at start: never an HTTP answer
 |   +- DatabaseAway      nothing answers, or not yet: it may be there later
 |   +- DatabaseBehind
 |   +- ModelFilesError
 +- CycleError               in the worker: ends a cycle with a reason
     +- LeaseLost
     +- CycleCancelled
     +- TrainerFailed
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""Anthropic's words for a status; `api_error` for the others that are a server's."""


class TTRLError(Exception):
    """Root of all errors raised on purpose. `message` is safe to show to a client."""

    status_code: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.told_headers: dict[str, str] = {}  # what the answer says beside the error

    def body(self) -> dict[str, dict[str, str | None]]:
        """OpenAI's error shape."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def anthropic_body(self) -> dict[str, Any]:
        """Anthropic's error shape, for the routes of its API."""
        kind = ANTHROPIC_TYPES.get(self.status_code, "api_error")
        if kind == "api_error" and self.status_code < 500:
            kind = "invalid_request_error"
        return {"type": "error", "error": {"type": kind, "message": self.message}}

    def headers(self) -> dict[str, str]:
        """Extra response headers: `Retry-After` in seconds where it helps."""
        if self.retry_after_s is None:
            return self.told_headers
        return {"Retry-After": str(self.retry_after_s)} | self.told_headers


class BadRequest(TTRLError):
    """The request cannot be understood or asks for something that is refused."""

    status_code = 400
    type = "invalid_request_error"
    code = "invalid_request"


class UnknownModel(BadRequest):
    """No such model for this tenant. Another tenant's adapter looks exactly the same."""

    status_code = 404
    code = "model_not_found"


class NotFound(BadRequest):
    """The named thing does not exist."""

    status_code = 404
    code = "not_found"


class NotServed(NotFound):
    """A route that OpenAI or Anthropic has and this server does not."""

    code = "not_served"


class MethodNotAllowed(BadRequest):
    """The route exists, for other methods."""

    status_code = 405
    code = "method_not_allowed"


class Conflict(BadRequest):
    """The state of the thing does not allow this now."""

    status_code = 409
    code = "conflict"


class BodyTooLarge(BadRequest):
    """The body is over the limit."""

    status_code = 413
    code = "request_too_large"


class BodyTooSlow(BadRequest):
    """The body did not arrive in time."""

    status_code = 408
    code = "request_timeout"


class HeadersTooLarge(BadRequest):
    """The head of the request is over the limit."""

    status_code = 431
    code = "headers_too_large"


class PromptTooLong(BadRequest):
    """Prompt and answer do not fit into the model's context; clients know OpenAI's code for it."""

    code = "context_length_exceeded"


class Unauthorized(TTRLError):
    """No key, or a key that is not valid."""

    status_code = 401
    type = "invalid_request_error"
    code = "invalid_api_key"

    def headers(self) -> dict[str, str]:
        """A 401 names the scheme that is expected."""
        return super().headers() | {"WWW-Authenticate": "Bearer"}


class Forbidden(TTRLError):
    """A valid key that may not do this."""

    status_code = 403
    type = "invalid_request_error"
    code = "forbidden"


class Overloaded(TTRLError):
    """More than this tenant may have: its limits, or the engine's."""

    status_code = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class Unavailable(TTRLError):
    """A part that is needed is away for the moment."""

    status_code = 503
    type = "server_error"
    code = "unavailable"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: int | None = 2
    ) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s)


class EngineUnavailable(Unavailable):
    """No engine can be reached, or it is starting."""

    code = "engine_unavailable"


class ServerFull(Unavailable):
    """All seats are taken, and nobody more may wait for one."""

    code = "server_full"


class EngineSilent(EngineUnavailable):
    """The engine accepts connections, but does not answer in time."""


class LogUnavailable(Unavailable):
    """The query log cannot be written, and a `200` would be a lie."""

    code = "log_unavailable"


class EngineFailed(TTRLError):
    """The engine answered something that makes no sense."""

    status_code = 502
    type = "server_error"
    code = "engine_error"


class AdapterDamaged(EngineFailed):
    """A version's files are not what was published, or not for this base model, so no engine may
    load them.
    """

    status_code = 409
    type = "invalid_request_error"
    code = "adapter_damaged"


class ConfigurationError(TTRLError):
    """The process cannot start like this."""

    code = "configuration_error"


class DatabaseAway(ConfigurationError):
    """The database does not answer at start, and may do so later."""


class DatabaseBehind(ConfigurationError):
    """The database's schema is older (or newer) than this program."""

    code = "database_behind"


class ModelFilesError(ConfigurationError):
    """The base model's files are missing or broken."""

    code = "model_files"


class CycleError(TTRLError):
    """Ends an adaptation cycle with a reason code."""

    code = "cycle_failed"


class LeaseLost(CycleError):
    """Another worker holds this cycle now: this one must not write any more."""

    code = "lease_lost"


class CycleCancelled(CycleError):
    """An operator cancelled the cycle."""

    code = "cancelled"


class TrainerFailed(CycleError):
    """The trainer process died or refused a request."""

    code = "trainer_failed"
