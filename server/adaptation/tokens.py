"""Token ids of the chats that were asked for last.

A cycle visits its prompts many times, each in several wordings, and an engine takes longer to read
a chat than to begin a sequence. What it said once it would say again: all engines serve one model
with one template, or they are put aside (server.engine.probe).
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256

import msgspec

Messages = Sequence[dict[str, str]]
MOST_TOKENS = 2**20  # 8 MiB


class TokenCache:
    """Forgets the chats that were not asked for the longest when it holds more than `most`."""

    def __init__(self, most: int = MOST_TOKENS) -> None:
        self._most = most
        self._held = 0
        self._chats: OrderedDict[bytes, array[int]] = OrderedDict()

    def get(self, messages: Messages) -> list[int] | None:
        """What was put for this chat, if it is still there."""
        key = _key(messages)
        if key not in self._chats:
            return None
        self._chats.move_to_end(key)
        return self._chats[key].tolist()

    def put(self, messages: Messages, token_ids: Sequence[int]) -> None:
        """Keep the token ids of a chat."""
        key = _key(messages)
        self._held -= len(self._chats.pop(key, ()))
        self._chats[key] = array("L", token_ids)
        self._held += len(token_ids)
        while self._held > self._most:
            self._held -= len(self._chats.popitem(last=False)[1])


def _key(messages: Messages) -> bytes:
    return sha256(msgspec.json.encode(messages)).digest()
