"""What a request's handler learns from the connection, which knows first: that the client has left,
and that the body is there.

ASGI says the one through `receive`, for which a handler that is busy needs a task of its own, and
the other in a message, for which it needs a bound on the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

LEAVING: Final = "ttrl.leaving"  # in the ASGI scope
ARRIVED: Final = "ttrl.arrived"  # likewise: a call gives the body, or None if more is to come


class Leaving:
    """Says when the client of one request leaves: the connection knows it first."""

    __slots__ = ("_told", "has_left")

    def __init__(self) -> None:
        self.has_left = False
        self._told: Callable[[], None] | None = None

    def tell(self, told: Callable[[], None] | None) -> None:
        """From now on call this when the client leaves; at once if it has left. None: nobody."""
        self._told = told
        if self.has_left and told is not None:
            told()

    def leave(self) -> None:
        """The client has left."""
        self.has_left = True
        if self._told is not None:
            self._told()
