"""Adapter versions on disk, below one root that every engine can read.

    t<tenant_id>/v<number>/                     a published version: manifest.json, adapter files
    t<tenant_id>/c<cycle_id>/s<step>/adapter/   one training step, loaded by engines while it lasts
    t<tenant_id>/c<cycle_id>/s<step>/state/     the optimizer's state after it, until the next one's

A published version is immutable. It appears whole or not at all: written next to its place, synced,
renamed, and the rename synced. Everything that is read is checked first, and no symbolic link below
the root is followed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from msgspec import structs

from adapters.lora_files import MAX_CONFIG_BYTES, check_config, check_weights
from adapters.manifest import (
    ADAPTER_FILES,
    CONFIG_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    SCHEMA_VERSION,
    WEIGHTS_NAME,
    FileEntry,
    Manifest,
    PoisonedAdapter,
    decode_manifest,
)

__all__ = ["AdapterStore", "Manifest", "PoisonedAdapter", "StepDirs", "VersionExists"]

IGNORED = frozenset(("README.md",))  # PEFT writes one; it is not published
COPY_BYTES = 2**20
_TENANT = re.compile(r"t[0-9]+")
_CYCLE = re.compile(r"c(?P<id>[0-9]+)")
_STEP = re.compile(r"s(?P<step>[0-9]+)(?:-f[0-9]+)?")  # -f: a later claim's
_STATE = re.compile(r"state")


class VersionExists(Exception):
    """The version's place is taken by another version."""


@dataclass(frozen=True, slots=True)
class StepDirs:
    """Where one training step is saved; the trainer makes the directories."""

    adapter: Path
    state: Path


class AdapterStore:
    """All adapter directories of all tenants. Its methods block on the disk.

    Args:
        root: made when something is published. The directories above it may be symbolic links.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def version_dir(self, tenant_id: int, number: int) -> Path:
        """Where a version is, or will be, published."""
        return self.root / f"t{_natural(tenant_id)}" / f"v{_natural(number)}"

    def step_dirs(self, tenant_id: int, cycle_id: int, step: int) -> StepDirs:
        """Where a training step is, or will be, saved."""
        step_dir = self._cycle_dir(tenant_id, cycle_id) / f"s{_natural(step)}"
        return StepDirs(adapter=step_dir / "adapter", state=step_dir / "state")

    def publish(
        self,
        source: Path,
        *,
        tenant_id: int,
        number: int,
        engine_name: str,
        parent: int,
        cycle_id: int | None,
        base_digest: str,
        rank: int,
        alpha: int,
        created_at: datetime,
    ) -> Manifest:
        """Make the adapter in `source` version `number` of the tenant, at `version_dir`.

        Done before by the same cycle with the same files, it is adopted as it is, so a crashed
        cycle may repeat this.

        Raises:
            PoisonedAdapter: `source`, or what is in the version's place, is not as it should be.
            VersionExists: the place is taken by another version.
        """
        draft = Manifest(
            schema_version=SCHEMA_VERSION,
            tenant_id=tenant_id,
            number=number,
            engine_name=engine_name,
            parent=parent,
            cycle_id=cycle_id,
            base_digest=base_digest,
            rank=rank,
            alpha=alpha,
            files={},
            created_at=created_at,
        )
        target = self.version_dir(tenant_id, number)
        if _exists(target):
            return self._adopt(source, target, draft)
        try:
            return self._build(source, target, draft)
        except (OSError, PoisonedAdapter):
            # Somebody may have been faster, and cleared away what was being written here.
            if _exists(target):
                return self._adopt(source, target, draft)
            raise

    def verify(self, path: Path, *, rank: int | None = None, alpha: int | None = None) -> Manifest:
        """Check a published directory against its manifest: names, sizes, SHA-256, LoRA, weights.

        Args:
            path: below the root.
            rank: what every adapter of this server must have; None: what the manifest says.
            alpha: likewise.

        Raises:
            PoisonedAdapter: with the first thing that is wrong.
        """
        self._refuse_links(path)
        expected = ADAPTER_FILES | {MANIFEST_NAME}
        _check_names(path, expected, frozenset())
        with _open(path, MANIFEST_NAME) as (file, size):
            manifest = decode_manifest(
                path, _read(path, MANIFEST_NAME, file, size, MAX_MANIFEST_BYTES)
            )
        for name, wanted in (("rank", rank), ("alpha", alpha)):
            if wanted is not None and getattr(manifest, name) != wanted:
                raise PoisonedAdapter(
                    path, f"{MANIFEST_NAME}: {name} is {getattr(manifest, name)}, not {wanted}"
                )
        for name, entry in sorted(manifest.files.items()):
            _check_content(path, name, entry)
        with _open(path, CONFIG_NAME) as (file, size):
            config = _read(path, CONFIG_NAME, file, size, MAX_CONFIG_BYTES)
        check_config(path, config, rank=manifest.rank, alpha=manifest.alpha)
        with _open(path, WEIGHTS_NAME) as (file, size):
            check_weights(path, file, size, rank=manifest.rank)
        return manifest

    def remove_cycle(self, tenant_id: int, cycle_id: int) -> None:
        """Delete all steps of a cycle. Idempotent."""
        directory = self._cycle_dir(tenant_id, cycle_id)
        if _exists(directory):
            self._refuse_links(directory)
            _delete(directory)

    def remove_states(self, tenant_id: int, cycle_id: int, *, before: int) -> None:
        """Delete the optimizer's states of a cycle's steps before this one, of all claims; adapters
        stay. Idempotent: what cannot be deleted now is tried again after the next step.
        """
        directory = self._cycle_dir(tenant_id, cycle_id)
        self._refuse_links(directory)
        for step in _directories(directory, _STEP):
            match = _STEP.fullmatch(step.name)
            if match is not None and int(match["step"]) < before:
                for state in _directories(step, _STATE):
                    shutil.rmtree(state, ignore_errors=True)

    def prune(self, finished: Collection[int]) -> list[int]:
        """Delete the steps of those cycles on disk that are in `finished`; nothing else, whatever
        lies around. Returns the ids of the cycles whose directories were deleted.
        """
        pruned: list[int] = []
        for tenant in _directories(self.root, _TENANT):
            for cycle in _directories(tenant, _CYCLE):
                cycle_id = int(cycle.name[1:])
                if cycle_id in finished:
                    _delete(cycle)
                    pruned.append(cycle_id)
        return sorted(pruned)

    def _cycle_dir(self, tenant_id: int, cycle_id: int) -> Path:
        return self.root / f"t{_natural(tenant_id)}" / f"c{_natural(cycle_id)}"

    def _adopt(self, source: Path, target: Path, draft: Manifest) -> Manifest:
        """The version that is there, if it is the one that would be published now.

        The ids alone do not tell: they come again when the database begins anew, or an older copy
        of it is restored, while the directories stay.
        """
        found = self.verify(target)
        wanted = structs.replace(draft, files=_entries(source), created_at=found.created_at)
        if draft.cycle_id is None or found != wanted:
            raise VersionExists(
                f"version {draft.number} of tenant {draft.tenant_id} exists, "
                f"from cycle {found.cycle_id}"
            )
        return found

    def _build(self, source: Path, target: Path, draft: Manifest) -> Manifest:
        """Write the version next to its place, check it there, and move it in."""
        self._refuse_links(target.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.parent / f".{target.name}.{secrets.token_hex(8)}"
        try:
            partial.mkdir()
            manifest = structs.replace(draft, files=self._copy(source, partial))
            _write(partial / MANIFEST_NAME, manifest.encode())
            _sync(partial)
            # On the copy, so that what was checked is what is published.
            self.verify(partial, rank=draft.rank, alpha=draft.alpha)
            partial.rename(target)
        finally:
            if _exists(partial):
                shutil.rmtree(partial, ignore_errors=True)
        self._remove_partials(target)
        for directory in (target.parent, self.root, self.root.parent):
            _sync(directory)
        return manifest

    def _copy(self, source: Path, partial: Path) -> dict[str, FileEntry]:
        """Copy the adapter's files, hashing the bytes that are written."""
        _check_names(source, ADAPTER_FILES, IGNORED)
        entries: dict[str, FileEntry] = {}
        for name in sorted(ADAPTER_FILES):
            digest = hashlib.sha256()
            with _open(source, name) as (file, _), _create(partial / name) as copy:
                while chunk := file.read(COPY_BYTES):
                    digest.update(chunk)
                    copy.write(chunk)
                entries[name] = FileEntry(sha256=digest.hexdigest(), size=copy.tell())
        return entries

    def _remove_partials(self, target: Path) -> None:
        """Delete what crashed attempts at this version left, now that its place is taken."""
        for partial in _directories(
            target.parent, re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]+")
        ):
            shutil.rmtree(partial, ignore_errors=True)

    def _refuse_links(self, path: Path) -> None:
        """Refuse a path that leaves the root, by its name or through a symbolic link."""
        try:
            parts = path.relative_to(self.root).parts
        except ValueError:
            raise PoisonedAdapter(path, "not below the adapters' root") from None
        if ".." in parts:
            raise PoisonedAdapter(path, "not below the adapters' root")
        place = self.root
        for part in parts:
            place /= part
            if place.is_symlink():
                raise PoisonedAdapter(path, f"{part}: a symbolic link")


def _natural(number: int) -> int:
    if number < 0:
        raise ValueError(f"negative: {number}")
    return number


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _delete(directory: Path) -> None:
    """Delete a directory, also while another process does, which may be quicker with some of it."""

    def on_error(_: object, __: str, error: tuple[object, BaseException, object]) -> None:
        if not isinstance(error[1], FileNotFoundError):
            raise error[1]

    shutil.rmtree(directory, onerror=on_error)


def _directories(parent: Path, name: re.Pattern[str]) -> Iterator[Path]:
    """The real directories in `parent` with such names, in order; none if it is not there."""
    if not parent.is_dir():
        return
    for path in sorted(parent.iterdir()):
        if name.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            yield path


def _check_names(path: Path, expected: Collection[str], ignored: Collection[str]) -> None:
    """Exactly the expected entries, each a regular file."""
    if path.is_symlink():
        raise PoisonedAdapter(path, "a symbolic link instead of a directory")
    try:
        entries = {entry.name: entry for entry in os.scandir(path)}
    except (FileNotFoundError, NotADirectoryError):
        raise PoisonedAdapter(path, "no such directory") from None
    for name in sorted(expected):
        if name not in entries:
            raise PoisonedAdapter(path, f"{name}: missing")
    for name, entry in sorted(entries.items()):
        if name not in expected and name not in ignored:
            raise PoisonedAdapter(path, f"{name[:80]!r}: unexpected")
        if entry.is_symlink():
            raise PoisonedAdapter(path, f"{name}: a symbolic link")
        if not entry.is_file(follow_symlinks=False):
            raise PoisonedAdapter(path, f"{name}: not a regular file")


@contextmanager
def _open(directory: Path, name: str) -> Generator[tuple[BufferedReader, int]]:
    """A regular file and its size; never through a link, never blocking on a pipe."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(directory / name, flags)
    except OSError as error:
        reason = "a symbolic link" if error.errno == errno.ELOOP else os.strerror(error.errno or 0)
        raise PoisonedAdapter(directory, f"{name}: {reason}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PoisonedAdapter(directory, f"{name}: not a regular file")
        yield file, status.st_size


def _read(path: Path, name: str, file: BinaryIO, size: int, limit: int) -> bytes:
    if size > limit:
        raise PoisonedAdapter(path, f"{name}: {size} bytes, more than {limit}")
    return file.read(limit)


def _entries(source: Path) -> dict[str, FileEntry]:
    """What a manifest would say of an adapter's files."""
    _check_names(source, ADAPTER_FILES, IGNORED)
    entries: dict[str, FileEntry] = {}
    for name in sorted(ADAPTER_FILES):
        with _open(source, name) as (file, size):
            entries[name] = FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), size)
    return entries


def _check_content(path: Path, name: str, entry: FileEntry) -> None:
    with _open(path, name) as (file, size):
        if size != entry.size:
            raise PoisonedAdapter(path, f"{name}: {size} bytes, not {entry.size} as published")
        if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
            raise PoisonedAdapter(path, f"{name}: SHA-256 differs from the published one")


@contextmanager
def _create(path: Path) -> Generator[BinaryIO]:
    """A new file, synced at the end."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, content: bytes) -> None:
    with _create(path) as file:
        file.write(content)


def _sync(directory: Path) -> None:
    """Make the directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
