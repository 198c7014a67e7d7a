"""Text that any database takes."""

from __future__ import annotations

import re

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text, with what UTF-8 or PostgreSQL's text cannot hold replaced by U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)
