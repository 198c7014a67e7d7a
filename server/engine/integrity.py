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


def verifier(store: AdapterStore) -> Verify:
    """A check of a version's files against its manifest, in a thread.

    It raises AdapterDamaged with what is wrong, when a file is not what was published, or the
    directory is another version's.
    """

    async def verify(version: VersionLike) -> None:
        try:
            manifest = await asyncio.to_thread(store.verify, Path(version.path))
        except PoisonedAdapter as error:
            reason = error.reason
        else:
            if manifest.engine_name == version.engine_name:
                return
            reason = "its directory holds another version"
        logger.error(
            "adapter damaged", extra={"adapter": version.engine_name, "path": version.path}
        )
        raise AdapterDamaged(f"The files of {version.label} are damaged: {reason}")

    return verify
