"""Log entries as bytes. A field that `LogEntry` gains needs a default, or what an older program
spooled cannot be read.
"""

from __future__ import annotations

import msgspec

from server.db.log import LogEntry

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(LogEntry)


class NotEncodable(Exception):
    """A value that has no form as bytes."""


def encode(entry: LogEntry) -> bytes:
    """The entry's bytes.

    Raises:
        NotEncodable: a number or a text in it is not storable.
    """
    try:
        return _ENCODER.encode(entry)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NotEncodable(str(error)) from error


def decode(data: bytes) -> LogEntry:
    """The entry.

    Raises:
        NotEncodable: the bytes are none.
    """
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise NotEncodable(str(error)) from error
