"""Who is calling, and which adapter version answers: key -> tenant -> version.

Read from the database, and again within a fraction of a second, beside the hot path, which so costs
no query. Changes made in the same process are seen at once (`invalidate`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ttrl_client.types import Limits, TenantSettings

from server.db import versions
from server.db.engine import Database
from server.db.models import AdapterVersion
from server.db.refreshing import RefreshingCache
from server.db.tenants import key_owner
from server.errors import Unauthorized, UnknownModel

logger = logging.getLogger(__name__)

IDENTITY_NAME = "identity"
PINNED = re.compile(r"v(0|[1-9][0-9]{0,8})")
MAX_SETTINGS = 10_000  # tenants whose settings are kept in memory
OUTAGE_S = 600.0  # a key that was valid serves so long while the database is away


@dataclass(frozen=True, slots=True)
class VersionRef:
    """An adapter version in a form that an engine can load."""

    number: int
    engine_name: str  # unique for these weights, for ever
    path: str  # absolute
    label: str  # what clients see, such as adder--v3


@dataclass(frozen=True, slots=True)
class Caller:
    """The tenant behind a valid key, with the version that answers it now."""

    tenant_id: int
    tenant: str
    live: VersionRef
    cache_salt: str  # keeps the tenants' prefix caches apart
    settings: TenantSettings

    @property
    def limits(self) -> Limits:
        """How much traffic of the tenant is served."""
        return self.settings.limits


def cache_salt(tenant_id: int) -> str:
    """What keeps a tenant's prefix cache apart from the others'."""
    return f"tenant-{tenant_id}"


def version_engine_name(tenant_id: int, tenant: str, number: int) -> str:
    """The engine's name of a published version; ids are never reused, so it is unique for ever."""
    return f"t{tenant_id}-{tenant}--v{number}"


def step_engine_name(tenant_id: int, tenant: str, cycle_id: int, step: int) -> str:
    """The engine's name of a training step's adapter."""
    return f"t{tenant_id}-{tenant}--c{cycle_id}-s{step}"


def identity_ref(tenant: str, identity_dir: Path) -> VersionRef:
    """Version 0: the base model behind an adapter that changes nothing."""
    return VersionRef(0, IDENTITY_NAME, str(identity_dir), f"{tenant}--v0")


def version_ref(tenant: str, row: AdapterVersion) -> VersionRef:
    """A published version."""
    return VersionRef(row.number, row.engine_name, row.path, f"{tenant}--v{row.number}")


class TenantDirectory:
    """Resolves API keys and model names.

    `digest` turns a presented key into the stored form; `identity_dir` is version 0's directory.
    """

    def __init__(
        self,
        database: Database,
        *,
        digest: Callable[[str], str],
        identity_dir: Path,
        served_model_name: str,
        cache_s: float,
    ) -> None:
        self._database = database
        self._digest = digest
        self._identity_dir = identity_dir
        self._served = served_model_name
        self._callers = RefreshingCache(self._read_caller, fresh_s=cache_s, outage_s=OUTAGE_S)
        self._settings: dict[int, tuple[dict[str, Any], TenantSettings]] = {}
        self._versions: dict[tuple[int, int], VersionRef] = {}  # immutable, so cached for good

    @property
    def knows_callers(self) -> bool:
        """Whether requests could be let in while the database is away."""
        return self._callers.num_servable > 0

    def invalidate(self) -> None:
        """Forget what may have changed: call after every change of tenants, keys or pointers."""
        self._callers.clear()

    async def caller(self, api_key: str) -> Caller:
        """The tenant of a key.

        Raises:
            Unauthorized: no such key, or it was revoked.
        """
        return await self._callers.get(self._digest(api_key))

    async def _read_caller(self, digest: str) -> Caller:
        tenant = await self._database.run(lambda c: key_owner(c, digest), write=False)
        if tenant is None:
            # OpenAI's own words: litellm tells a bad key from a bad request by them alone.
            raise Unauthorized("Incorrect API key provided.")
        live = await self._version(tenant.id, tenant.name, tenant.live_version)
        settings = self._settings_of(tenant.id, tenant.settings)
        return Caller(tenant.id, tenant.name, live, cache_salt(tenant.id), settings)

    def _settings_of(self, tenant_id: int, stored: dict[str, Any]) -> TenantSettings:
        """Read anew only where they changed: keys are looked up much more often."""
        known = self._settings.get(tenant_id)
        if known is None or known[0] != stored:
            if len(self._settings) >= MAX_SETTINGS:
                self._settings.clear()
            known = self._settings[tenant_id] = stored, readable_settings(tenant_id, stored)
        return known[1]

    async def _version(self, tenant_id: int, tenant: str, number: int) -> VersionRef:
        if number == 0:
            return identity_ref(tenant, self._identity_dir)
        ref = self._versions.get((tenant_id, number))
        if ref is None:
            async with self._database.transaction(write=False) as session:
                row = await versions.version_row(session, tenant_id, number)
            if row is None:
                raise UnknownModel(f"There is no version {number}.", param="model")
            ref = self._versions[tenant_id, number] = version_ref(tenant, row)
        return ref

    async def resolve(self, caller: Caller, model: str) -> VersionRef:
        """The version that `model` means for this caller.

        `<served>` is the live version, `<served>@base` version 0, `<served>@v3` version 3 of the
        same tenant.

        Raises:
            UnknownModel: anything else, other tenants' adapters included.
        """
        name, at, suffix = model.partition("@")
        if name == self._served:
            if not at:
                return caller.live
            if suffix == "base":
                return identity_ref(caller.tenant, self._identity_dir)
            pinned = PINNED.fullmatch(suffix)
            if pinned is not None:
                return await self._version(caller.tenant_id, caller.tenant, int(pinned[1]))
        raise UnknownModel(f"The model `{model[:200]}` does not exist.", param="model")

    async def version_numbers(self, caller: Caller) -> list[int]:
        """The caller's published versions, newest first."""
        async with self._database.transaction(write=False) as session:
            return [row.number for row in await versions.versions_of(session, caller.tenant_id)]

    async def live_versions(self) -> list[VersionRef]:
        """The live versions of all tenants, the identity adapter first."""
        async with self._database.transaction(write=False) as session:
            rows = await versions.live_versions(session)
        identity = VersionRef(0, IDENTITY_NAME, str(self._identity_dir), IDENTITY_NAME)
        return [identity, *(version_ref(tenant.name, row) for tenant, row in rows)]


def readable_settings(tenant_id: int, stored: dict[str, Any]) -> TenantSettings:
    """The stored settings, with defaults in the place of the parts that are of another release's
    making: requests are answered, and tenants are listed, whatever one of them has stored.
    """
    try:
        return TenantSettings.model_validate(stored)
    except ValidationError as error:
        logger.warning("tenant %d: stored settings cannot be read: %s", tenant_id, error)
        bad = {detail["loc"][0] for detail in error.errors() if detail["loc"]}
        return _readable_parts({k: v for k, v in stored.items() if k not in bad})


def _readable_parts(parts: dict[str, Any]) -> TenantSettings:
    try:
        return TenantSettings.model_validate(parts)
    except ValidationError:  # what is left needs what is not
        return TenantSettings()
