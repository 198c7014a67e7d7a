"""Puts public names into an engine's answers: the request's id, the served model, the version.

An event of a stream is patched as bytes where its beginning is what vLLM writes, which costs a
microsecond; anything else is decoded and written anew.
"""

from __future__ import annotations

from typing import Any

import msgspec

from server.errors import EngineFailed

_FINGERPRINT = b'"system_fingerprint":'


class Rewriter:
    """Rewrites the answers of one request."""

    def __init__(self, *, answer_id: str, engine_name: str, served_name: str, label: str) -> None:
        self._names = {"id": answer_id, "model": served_name, "system_fingerprint": label}
        encode = msgspec.json.encode
        self._start = b'{"id":' + encode(answer_id) + b","
        # Inside strings quotes are escaped, so this can only be a key and its value; the first one
        # is the top-level one, because vLLM writes `model` before `choices`.
        self._engine_model = b'"model":' + encode(engine_name) + b","
        self._public = b"".join(
            (b'"model":', encode(served_name), b",", _FINGERPRINT, encode(label), b",")
        )
        # How the last patched event began, up to its model, and what that became: all events of a
        # stream begin alike, so the next one need not be searched.
        self._head = self._public_head = b""

    def event(self, data: bytes) -> bytes:
        """An event's data with public names."""
        length = len(self._head)
        if self._public_head and data.startswith(self._head):
            if data.find(_FINGERPRINT, length) < 0:  # nor is it in the head
                return self._public_head + data[length:]
            return self.body(data)
        head, found, tail = data.partition(self._engine_model)
        if not found or not head.startswith(self._start) or _FINGERPRINT in data:
            return self.body(data)
        self._head, self._public_head = head + found, head + self._public
        return self._public_head + tail

    def body(self, data: bytes) -> bytes:
        """A whole body with public names.

        Raises:
            EngineFailed: it is not a JSON object.
        """
        try:
            answer: Any = msgspec.json.decode(data)
            return msgspec.json.encode(answer | self._names)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError):
            raise EngineFailed("The engine's answer cannot be read.") from None
