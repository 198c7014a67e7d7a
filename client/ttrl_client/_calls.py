"""Every operation of the admin API, described once and without any I/O: what is sent, and what the
answer is. The functions' names are the operation ids of the server's OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from ttrl_client import types
from ttrl_client._errors import APIResponseError, retry_after_s, status_error, transport_error

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Outcome = httpx.Response | httpx.TransportError

PREFIX = "/admin/v1"
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
DEFAULT_LIMIT = 50


class Parse(Protocol[T_co]):
    """Reads an answer: a model's `model_validate_json`. What a newer server adds is ignored."""

    def __call__(self, json_data: bytes, /, *, extra: Literal["ignore"]) -> T_co: ...


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is tried again, and how long before: the pause doubles, unless the server
    says `Retry-After`.
    """

    num_retries: int = 2
    first_pause_s: float = 0.25
    max_pause_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    parse: Parse[T]
    body: BaseModel | None = None
    params: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    prefix: str = PREFIX
    is_idempotent: bool = False  # a POST that may be sent twice

    @property
    def is_retried(self) -> bool:
        """Whether a second try changes neither the server nor the answer. A DELETE after one whose
        answer was lost would be a 404.
        """
        return self.is_idempotent or self.method in ("GET", "PUT")

    def request(self) -> dict[str, Any]:
        """Arguments for `httpx.Client.request`."""
        body = None if self.body is None else self.body.model_dump(mode="json", exclude_unset=True)
        return {
            "method": self.method,
            "url": self.prefix + self.path,
            "params": self.params or None,
            "json": body,
        }

    def pause_s(self, outcome: Outcome, num_tries: int, retries: Retries) -> float | None:
        """How long to wait before the next try; None: this outcome stands."""
        if not self.is_retried or num_tries > retries.num_retries:
            return None
        pause = retries.first_pause_s * 2 ** (num_tries - 1)
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in RETRIED_STATUSES:
                return None
            pause = max(pause, retry_after_s(outcome) or 0)
        return min(pause, retries.max_pause_s)

    def result(self, outcome: Outcome) -> T:
        """The answer.

        Raises:
            TTRLError: there is none, or it is an error.
        """
        if isinstance(outcome, httpx.TransportError):
            raise transport_error(outcome) from outcome
        if not outcome.is_success:
            raise status_error(outcome)
        try:
            return self.parse(outcome.content, extra="ignore")
        except ValidationError as error:
            raise APIResponseError(
                f"{outcome.url} did not answer as it should: is it a TTRL server?"
            ) from error


def read_status() -> Call[types.Status]:
    """The whole server at a glance."""
    return Call("GET", "/status", types.Status.model_validate_json)


def create_tenant(name: str, settings: types.TenantSettings | None = None) -> Call[types.NewTenant]:
    """Make a tenant with its first API key, whose secret is in this answer and nowhere else."""
    body = (
        types.TenantCreate(name=name)
        if settings is None
        else types.TenantCreate(name=name, settings=settings)
    )
    return Call("POST", "/tenants", types.NewTenant.model_validate_json, body)


def list_tenants(
    *, limit: int = DEFAULT_LIMIT, before: str | None = None
) -> Call[types.Page[types.Tenant]]:
    """Tenants, newest first."""
    parse = types.Page[types.Tenant].model_validate_json
    return Call("GET", "/tenants", parse, params=_page(limit, before))


def read_tenant(name: str) -> Call[types.Tenant]:
    """A tenant with its settings and its live version."""
    return Call("GET", _tenant(name), types.Tenant.model_validate_json)


def update_tenant(name: str, settings: types.TenantSettings) -> Call[types.Tenant]:
    """Replace a tenant's settings whole. A cycle that has begun keeps its own."""
    body = types.TenantUpdate(settings=settings)
    return Call("PUT", _tenant(name) + "/settings", types.Tenant.model_validate_json, body)


def delete_tenant(name: str) -> Call[None]:
    """Delete a tenant: its keys are revoked, its cycle is cancelled."""
    return Call("DELETE", _tenant(name), _nothing)


def create_key(tenant: str, name: str = "default") -> Call[types.NewKey]:
    """Make an API key, whose secret is in this answer and nowhere else."""
    body = types.KeyCreate(name=name)
    return Call("POST", _tenant(tenant) + "/keys", types.NewKey.model_validate_json, body)


def list_keys(
    tenant: str, *, limit: int = DEFAULT_LIMIT, before: str | None = None
) -> Call[types.Page[types.Key]]:
    """A tenant's API keys without their secrets, newest first, revoked ones included."""
    parse = types.Page[types.Key].model_validate_json
    return Call("GET", _tenant(tenant) + "/keys", parse, params=_page(limit, before))


def revoke_key(tenant: str, key_id: int) -> Call[types.Key]:
    """Refuse an API key from now on."""
    return Call("DELETE", f"{_tenant(tenant)}/keys/{key_id}", types.Key.model_validate_json)


def trigger_cycle(tenant: str, *, seed: int | None = None) -> Call[types.Cycle]:
    """Ask for an adaptation cycle. A tenant has at most one pending or running cycle."""
    body = types.CycleCreate(seed=seed)
    return Call("POST", _tenant(tenant) + "/cycles", types.Cycle.model_validate_json, body)


def list_all_cycles(
    *, limit: int = DEFAULT_LIMIT, before: str | None = None
) -> Call[types.Page[types.Cycle]]:
    """The cycles of all tenants, newest first, without their steps."""
    parse = types.Page[types.Cycle].model_validate_json
    return Call("GET", "/cycles", parse, params=_page(limit, before))


def list_cycles(
    tenant: str, *, limit: int = DEFAULT_LIMIT, before: str | None = None
) -> Call[types.Page[types.Cycle]]:
    """A tenant's cycles, newest first, without their steps."""
    parse = types.Page[types.Cycle].model_validate_json
    return Call("GET", _tenant(tenant) + "/cycles", parse, params=_page(limit, before))


def read_cycle(tenant: str, cycle_id: int) -> Call[types.Cycle]:
    """A cycle with its steps and the gate's decision."""
    return Call("GET", _cycle(tenant, cycle_id), types.Cycle.model_validate_json)


def cancel_cycle(tenant: str, cycle_id: int) -> Call[types.Cycle]:
    """Cancel a cycle: a pending one at once, a running one at its worker's next safe point."""
    return Call("POST", _cycle(tenant, cycle_id) + "/cancel", types.Cycle.model_validate_json)


def list_versions(
    tenant: str, *, limit: int = DEFAULT_LIMIT, before: str | None = None
) -> Call[types.Page[types.Version]]:
    """A tenant's versions, newest first, down to version 0, the base model."""
    parse = types.Page[types.Version].model_validate_json
    return Call("GET", _tenant(tenant) + "/versions", parse, params=_page(limit, before))


def read_version(tenant: str, number: int) -> Call[types.Version]:
    """A version with the report that let it pass the gate."""
    path = f"{_tenant(tenant)}/versions/{number}"
    return Call("GET", path, types.Version.model_validate_json)


def promote(tenant: str, version: int) -> Call[types.Swap]:
    """Make a version live by hand, whatever the gate said."""
    body = types.Promotion(version=version)
    return Call("POST", _tenant(tenant) + "/promote", types.Swap.model_validate_json, body)


def rollback(tenant: str, version: int | None = None) -> Call[types.Swap]:
    """Go back to an earlier version: by default to the one that was live before this one."""
    body = types.Rollback(version=version)
    return Call("POST", _tenant(tenant) + "/rollback", types.Swap.model_validate_json, body)


def list_swaps(
    tenant: str, *, limit: int = DEFAULT_LIMIT, before: str | None = None
) -> Call[types.Page[types.Swap]]:
    """The moves of a tenant's pointer, newest first."""
    parse = types.Page[types.Swap].model_validate_json
    return Call("GET", _tenant(tenant) + "/swaps", parse, params=_page(limit, before))


def list_queries(
    tenant: str, *, limit: int = DEFAULT_LIMIT, before: str | None = None
) -> Call[types.Page[types.Query]]:
    """A tenant's logged queries with all their sampled answers, newest first."""
    parse = types.Page[types.Query].model_validate_json
    return Call("GET", _tenant(tenant) + "/queries", parse, params=_page(limit, before))


def _tenant(name: str) -> str:
    return f"/tenants/{types.check_tenant_name(name)}"


def _cycle(tenant: str, cycle_id: int) -> str:
    return f"{_tenant(tenant)}/cycles/{cycle_id}"


def _page(limit: int, before: str | None) -> dict[str, str | int]:
    return {"limit": limit} if before is None else {"limit": limit, "before": before}


def _nothing(_body: bytes, /, *, extra: Literal["ignore"]) -> None:
    return None
