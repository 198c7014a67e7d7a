"""What sampling hands to the vote."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.waves import Stop
from server.adaptation.prompt import Prompt
from server.engine.client import Completion


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled completion of one view of a prompt."""

    view: int
    prompt_ids: list[int]
    completion: Completion

    @property
    def truncated(self) -> bool:
        """Whether it was cut off at the token limit: such a sample neither votes nor teaches."""
        return self.completion.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class SampledGroup:
    """A prompt with its samples, in the order in which they were drawn: of each view in turn."""

    prompt: Prompt
    samples: tuple[Sample, ...]
    refused: bool = False  # the engine would not take the prompt
    incumbent: tuple[Sample, ...] = ()  # of the incumbent's weights: they vote, and back the label
    served: tuple[str, ...] = ()  # answers to users that vote too, as view 0
    stop: Stop | None = None  # why fewer were drawn than could have been
