"""What can go wrong, shaped for `except`.

TTRLError
 +- ConfigurationError            no admin key, or one that cannot be sent
 +- APIConnectionError            the server did not answer
 |   +- APITimeoutError           not in time
 +- APIResponseError              it answered something that is not the API
 +- APIStatusError                it answered with an error; has .status_code, .code, .param
 |   +- BadRequestError           400, 413, 422
 |   +- AuthenticationError       401
 |   +- PermissionDeniedError     403
 |   +- NotFoundError             404
 |   +- ConflictError             409
 |   +- RateLimitError            429
 |   +- ServerError               5xx
 |       +- UnavailableError      503; has .retry_after_s
 +- WaitTimeoutError              a cycle was not final in the time given to `wait` or `watch`
"""

from __future__ import annotations

import httpx
from pydantic import ValidationError

from ttrl_client.types import ErrorBody, ErrorDetail


class TTRLError(Exception):
    """Root of everything that this package raises on purpose."""


class ConfigurationError(TTRLError):
    """The client cannot be used like this."""


class APIConnectionError(TTRLError):
    """The server did not answer."""


class APITimeoutError(APIConnectionError):
    """The server did not answer in time."""


class APIResponseError(TTRLError):
    """The answer is not one of the admin API: perhaps something else listens at this address."""


class WaitTimeoutError(TTRLError):
    """The cycle was not final in time. It goes on."""


class APIStatusError(TTRLError):
    """The server answered with an error."""

    def __init__(self, detail: ErrorDetail, response: httpx.Response) -> None:
        super().__init__(detail.message)
        self.message = detail.message
        self.type = detail.type
        self.code = detail.code
        self.param = detail.param
        self.response = response
        self.status_code = response.status_code


class BadRequestError(APIStatusError):
    """The request is malformed or asks for something that is refused."""


class AuthenticationError(APIStatusError):
    """The admin key is missing or wrong."""


class PermissionDeniedError(APIStatusError):
    """The key may not do this."""


class NotFoundError(APIStatusError):
    """There is no such thing."""


class ConflictError(APIStatusError):
    """The state does not allow it now."""


class RateLimitError(APIStatusError):
    """Too many requests."""


class ServerError(APIStatusError):
    """The server made a mistake, or something behind it did."""


class UnavailableError(ServerError):
    """The database or every engine is away for the moment."""

    @property
    def retry_after_s(self) -> float | None:
        """When the server thinks that trying again makes sense, in seconds."""
        return retry_after_s(self.response)


BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: BadRequestError,
    422: BadRequestError,
    429: RateLimitError,
    503: UnavailableError,
}


def status_error(response: httpx.Response) -> APIStatusError:
    """The exception of an error answer."""
    default = ServerError if response.status_code >= 500 else APIStatusError
    return BY_STATUS.get(response.status_code, default)(_detail(response), response)


def transport_error(error: httpx.TransportError) -> APIConnectionError:
    """The exception of a request without an answer."""
    kind = APITimeoutError if isinstance(error, httpx.TimeoutException) else APIConnectionError
    where = f"{error.request.url.scheme}://{error.request.url.netloc.decode()}"
    return kind(f"{where} does not answer: {str(error) or type(error).__name__}")


def retry_after_s(response: httpx.Response) -> float | None:
    """The `Retry-After` header in seconds; None without one, or if it is a date."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None


def _detail(response: httpx.Response) -> ErrorDetail:
    try:
        return ErrorBody.model_validate_json(response.content).error
    except ValidationError:  # a proxy in between has its own idea of an error
        message = f"HTTP {response.status_code} {response.reason_phrase}".rstrip()
        return ErrorDetail(message=message, type="unknown")
