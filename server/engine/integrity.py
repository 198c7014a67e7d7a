"""Nothing is loaded from a version's directory that is not what was published there.

An engine takes what it finds: NaN weights without a word, and files that go missing later end it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from adapters.base_digest import is_same_base
from adapters.manifest import Manifest
from adapters.store import AdapterStore, PoisonedAdapter
from server.errors import AdapterDamaged

logger = logging.getLogger(__name__)

VERSION_NAME = re.compile(r".+--v[0-9]+")


class VersionLike(Protocol):
    """An adapter version in a form that an engine can load."""

    @property
    def engine_name(self) -> str:
        """Unique for these weights, for ever."""
        ...

    @property
    def path(self) -> str:
        """Absolute directory."""
        ...

    @property
    def label(self) -> str:
        """What clients may see."""
        ...


Verify = Callable[[VersionLike], Awaitable[None]]


def is_published(engine_name: str) -> bool:
    """Whether a name is a published version's: the identity adapter and training steps have no
    manifest.
    """
    return VERSION_NAME.fullmatch(engine_name) is not None


def verifier(store: AdapterStore, base_digest: str | None = None) -> Verify:
    """A check of a version's files against its manifest, in a thread.

    It raises AdapterDamaged with what is wrong, when a file is not what was published, the
    directory is another version's, or the version was made for another base model than this
    server's, which `base_digest` is of (None: not known). Where nobody can tell whether it is
    another one, it only warns.
    """

    async def verify(version: VersionLike) -> None:
        try:
            manifest = await asyncio.to_thread(store.verify, Path(version.path))
        except PoisonedAdapter as error:
            reason = error.reason
        else:
            if manifest.engine_name == version.engine_name:
                _check_base(version, manifest, base_digest)
                return
            reason = "its directory holds another version"
        logger.error(
            "adapter damaged", extra={"adapter": version.engine_name, "path": version.path}
        )
        raise AdapterDamaged(f"The files of {version.label} are damaged: {reason}")

    return verify


def _check_base(version: VersionLike, manifest: Manifest, base_digest: str | None) -> None:
    same = True if base_digest is None else is_same_base(manifest.base_digest, base_digest)
    if same:
        return
    extra = {"adapter": version.engine_name, "made_for": manifest.base_digest, "base": base_digest}
    if same is None:
        logger.warning("adapter may be of another base model", extra=extra)
        return
    logger.error("adapter of another base model", extra=extra)
    raise AdapterDamaged(f"{version.label} was made for another base model than this server's")
