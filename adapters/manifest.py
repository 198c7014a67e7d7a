"""The manifest of a published adapter version: what it is, where it comes from, which bytes."""

from __future__ import annotations

import hashlib
from datetime import datetime

import msgspec

MANIFEST_NAME = "manifest.json"
CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
ADAPTER_FILES = frozenset((CONFIG_NAME, WEIGHTS_NAME))
SCHEMA_VERSION = 1
MAX_MANIFEST_BYTES = 64 * 1024


class PoisonedAdapter(Exception):
    """A directory is not the adapter that it should be; the message says why, and is safe to show.

    `path` is where it lies, which is not safe to show.
    """

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(reason)
        self.path = str(path)
        self.reason = reason


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file's content."""

    sha256: str
    size: int  # bytes


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Written once, next to the adapter's files."""

    schema_version: int
    tenant_id: int
    number: int  # of the version
    engine_name: str
    parent: int  # version that it was trained from; 0 is the identity adapter
    cycle_id: int | None  # cycle that made it
    base_digest: str  # of the base model, see adapters.base_digest
    rank: int
    alpha: int
    files: dict[str, FileEntry]
    created_at: datetime

    def encode(self) -> bytes:
        """The content of the manifest file; equal manifests have equal bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest file, which names the version's whole content."""
        return hashlib.sha256(self.encode()).hexdigest()


def decode_manifest(path: object, content: bytes) -> Manifest:
    """Read a manifest file's content. `path` is only named in the error.

    Raises:
        PoisonedAdapter: it is not a manifest of this schema, or names files that it may not.
    """
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonedAdapter(path, f"{MANIFEST_NAME}: {error}") from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise PoisonedAdapter(
            path,
            f"{MANIFEST_NAME}: schema version {manifest.schema_version} is not {SCHEMA_VERSION}",
        )
    # Exactly these names: no path of any kind can be smuggled in.
    strange = sorted(set(manifest.files) - ADAPTER_FILES)
    if strange:
        raise PoisonedAdapter(path, f"{MANIFEST_NAME}: names the file {strange[0][:80]!r}")
    missing = sorted(ADAPTER_FILES - set(manifest.files))
    if missing:
        raise PoisonedAdapter(path, f"{MANIFEST_NAME}: does not name {missing[0]}")
    return manifest
