"""A prompt as cycles know it."""

from __future__ import annotations

from dataclasses import dataclass

Messages = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as it was last asked."""

    query_id: str
    fingerprint: str
    messages: Messages  # empty: erased from the log since it was selected
    visits_left: int = 0  # updates that it may still take part in; 0 in the probe
