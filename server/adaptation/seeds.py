"""Seeds, so that what is done again after a crash asks for the same samples."""

from __future__ import annotations

from hashlib import sha256


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**31) that depends on every part."""
    return int.from_bytes(sha256(repr(parts).encode()).digest()[:4], "big") >> 1
