"""Tenants and their API keys."""

from __future__ import annotations

import re
from datetime import datetime

from pydantic import Field

from ttrl_client.types._base import Wire, WireInput
from ttrl_client.types._settings import TenantSettings

TENANT_NAME = r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$"


class TenantCreate(WireInput):
    """A new tenant, which gets its first API key at once."""

    name: str = Field(
        pattern=TENANT_NAME,
        description="Lower-case letters, digits and dashes; unique while it lives.",
    )
    settings: TenantSettings = Field(
        default_factory=TenantSettings, description="What is left out has its default."
    )


class TenantUpdate(WireInput):
    """New settings, which replace the old ones whole. A running cycle keeps those that it started
    with.
    """

    settings: TenantSettings = Field(description="What is left out goes back to its default.")


class Tenant(Wire):
    """A tenant as it is now."""

    id: int = Field(description="Never reused, not even for a tenant of the same name.")
    name: str = Field(description="Unique among living tenants.")
    settings: TenantSettings = Field(description="As they are now.")
    live_version: int = Field(
        description="Version that answers; 0 is the base model with the identity adapter."
    )
    previous_version: int | None = Field(description="What a rollback goes back to; null: nothing.")
    num_queries: int = Field(description="Logged queries.")
    active_cycle: int | None = Field(description="Id of the pending or running cycle.")
    created_at: datetime = Field(description="When it was made.")


class KeyCreate(WireInput):
    """A new API key."""

    name: str = Field(
        default="default",
        min_length=1,
        max_length=80,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Tells keys apart; need not be unique.",
    )


class Key(Wire):
    """An API key without its secret."""

    id: int = Field(description="Names the key when it is revoked.")
    name: str = Field(description="As it was given; need not be unique.")
    prefix: str = Field(description="First characters of the secret.")
    created_at: datetime = Field(description="When it was made.")
    revoked_at: datetime | None = Field(description="Since when it is refused.")


class NewKey(Key):
    """A new API key: the only time that the secret is shown."""

    secret: str = Field(description="The key itself: `Authorization: Bearer <secret>`.")


class NewTenant(Tenant):
    """A new tenant with its first API key: the only time that the key's secret is shown."""

    key: NewKey = Field(description="Its first API key.")


def check_tenant_name(name: str) -> str:
    """The name, if it is one.

    Raises:
        ValueError: it is not.
    """
    if not re.fullmatch(TENANT_NAME, name):
        raise ValueError(f"not a tenant name: {name!r}")
    return name
