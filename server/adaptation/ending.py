"""How cycles end: with a status and reasons, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass

from ttrl_client.types import CycleStatus


@dataclass(frozen=True, slots=True)
class Ending:
    """A cycle's final status. `stored`: the row has it already, in the transaction of the swap."""

    status: CycleStatus
    reasons: tuple[str, ...] = ()
    error: str | None = None
    stored: bool = False
