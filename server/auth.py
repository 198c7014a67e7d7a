"""Who may do what: the admin key, the digests of tenants' API keys, and the check in front of the
admin API.

Both secrets of the server, the admin key and the pepper of the API keys' digests, come from the
settings or are made at first start as files that only their owner can read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from server.config import Settings
from server.errors import ConfigurationError, Unauthorized

ADMIN_KEY_FILE = "admin.key"
PEPPER_FILE = "pepper.key"
SECRET_PREFIX = "sk-ttrl-"
SHOWN_CHARACTERS = len(SECRET_PREFIX) + 4  # 24 of the 256 bits: enough to tell keys apart
RANDOM_BYTES = 32
HEADER_CHARACTERS = frozenset(map(chr, range(0x21, 0x7F)))

ADMIN_SCHEME = HTTPBearer(
    auto_error=False,
    scheme_name="adminKey",
    description="The server's admin key: `Authorization: Bearer <admin key>`.",
)


@dataclass(frozen=True, slots=True)
class Keys:
    """The server's two secrets. Never printed, never logged."""

    admin_key: str = field(repr=False)
    pepper: bytes = field(repr=False)
    metrics_key: str | None = field(default=None, repr=False)

    @classmethod
    def load(cls, settings: Settings) -> Keys:
        """The secrets from the settings, or from their files, which are made if they are missing.

        Raises:
            ConfigurationError: a secret is empty, or its file is not readable or not private.
        """
        if settings.admin_key is not None:
            admin_key = settings.admin_key.get_secret_value().strip()
        else:
            admin_key = _load_or_make(settings.data_dir / ADMIN_KEY_FILE, "ttrl-admin-")
        if not admin_key or not set(admin_key) <= HEADER_CHARACTERS:
            raise ConfigurationError("The admin key must be visible ASCII characters, not empty.")
        if settings.key_pepper is not None:
            pepper = settings.key_pepper.get_secret_value().strip()
        else:
            pepper = _load_or_make(settings.data_dir / PEPPER_FILE, "")
        if not pepper:
            raise ConfigurationError("TTRL_KEY_PEPPER is empty.")
        return cls(admin_key, pepper.encode(), _metrics_key(settings))

    def digest(self, secret: str) -> str:
        """Hex HMAC-SHA256 of an API key with the pepper: what the database knows of it."""
        presented = secret.encode("utf-8", "surrogateescape")
        return hmac.digest(self.pepper, presented, "sha256").hex()

    def is_admin(self, presented: str) -> bool:
        """Whether this is the admin key, in a time that does not depend on either."""
        return _is_same(presented, self.admin_key)

    def may_scrape(self, presented: str) -> bool:
        """Whether this key opens `/metrics`: the one for that alone, or the admin key."""
        is_metrics_key = self.metrics_key is not None and _is_same(presented, self.metrics_key)
        return self.is_admin(presented) or is_metrics_key


def _is_same(presented: str, secret: str) -> bool:
    theirs = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
    ours = hashlib.sha256(secret.encode()).digest()
    return hmac.compare_digest(theirs, ours)


def _metrics_key(settings: Settings) -> str | None:
    if settings.metrics_key is None:
        return None
    key = settings.metrics_key.get_secret_value().strip()
    if not key or not set(key) <= HEADER_CHARACTERS:
        raise ConfigurationError("TTRL_METRICS_KEY must be visible ASCII characters, not empty.")
    return key


def new_secret() -> str:
    """A new API key with 256 random bits."""
    return SECRET_PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def shown_prefix(secret: str) -> str:
    """The part of an API key that lists show, to tell keys apart."""
    return secret[:SHOWN_CHARACTERS]


def admin_required(keys: Keys) -> Callable[..., Awaitable[None]]:
    """A FastAPI dependency that lets only the admin key pass, and documents itself in OpenAPI."""

    async def check(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(ADMIN_SCHEME)],
    ) -> None:
        if credentials is None:
            raise Unauthorized(
                "The admin key is missing: send `Authorization: Bearer <admin key>`."
            )
        if not keys.is_admin(credentials.credentials):
            raise Unauthorized("This is not the server's admin key.")

    return check


def _load_or_make(path: Path, prefix: str) -> str:
    try:
        return _read_private(path)
    except FileNotFoundError:
        pass
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_private(path, prefix + secrets.token_urlsafe(RANDOM_BYTES))
        return _read_private(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be made: {error.strerror}.") from error


def _read_private(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    if mode & 0o077:
        raise ConfigurationError(
            f"{path} is open to others (mode {mode:04o}). Make it private with"
            f" `chmod 600 {path}`, or delete it to get a new one."
        )
    try:
        secret = content.decode().strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not text.") from None
    if not secret:
        raise ConfigurationError(f"{path} is empty. Delete it to get a new one.")
    return secret


def _make_private(path: Path, content: str) -> None:
    """Write the file unless it exists. It appears under its name with its whole content, or not at
    all, so two processes that start at once agree on the one that came first.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # unlike a rename, it fails when the name is taken
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
