"""What a request holds for the length of a block, and gives back however the block ends."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class Held:
    """A block around two calls: `take` may raise, and then `give_back` is not called.

    Not a generator: those cost three times as much, and every request holds half a dozen things.
    """

    __slots__ = ("_give_back", "_take")

    def __init__(self, take: Callable[[], None], give_back: Callable[[], None]) -> None:
        self._take = take
        self._give_back = give_back

    def __enter__(self) -> None:
        self._take()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_back()
