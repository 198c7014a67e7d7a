"""One name for what code that reads hostile text raises where it has a defect."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


class Defect(Exception):
    """Code of ours failed on a text of a user's or a model's, which must not end what goes on
    around it: who must go on catches this. The cause is what was raised.
    """


@contextmanager
def defects_named() -> Generator[None]:
    """What only a defect raises in here becomes a `Defect`. As little as can be belongs
    in here: a mistake of whoever calls it is none.

    Raises:
        Defect: see there.
    """
    try:
        yield
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise Defect(f"{type(error).__name__}: {error}") from error
