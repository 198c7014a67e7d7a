"""Clients for a TTRL server: typed, sync and async, and the `ttrl` command."""

from ttrl_client._calls import Retries
from ttrl_client._client import AsyncTTRLClient, TTRLClient
from ttrl_client._errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    TTRLError,
    UnavailableError,
    WaitTimeoutError,
)
from ttrl_client._tenant_client import AsyncTenantClient, TenantClient

__all__ = [
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncTTRLClient",
    "AsyncTenantClient",
    "AuthenticationError",
    "BadRequestError",
    "ConfigurationError",
    "ConflictError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "Retries",
    "ServerError",
    "TTRLClient",
    "TTRLError",
    "TenantClient",
    "UnavailableError",
    "WaitTimeoutError",
]
