"""How a request is voted on: as it asks for, within the bounds of its tenant and of the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ttrl_client.types import TenantSettings

from adapters.answers import AnswerSpec
from adapters.waves import Rule, lead_probability
from server.answers import spec_of
from server.errors import BadRequest
from server.gateway.parsing import Asked


@dataclass(frozen=True, slots=True)
class VotePlan:
    """At most `votes` answers, where `wanted` were asked for, read as `spec` says. `confidence` is
    how sure the vote must be to end before.
    """

    wanted: int
    votes: int
    confidence: float
    spec: AnswerSpec

    @property
    def first_wave(self) -> int:
        """The fewest answers that decide the vote, if all are equal."""
        most = self.votes // 2 + 1
        sure = (n for n in range(1, most) if lead_probability(n, 0) >= self.confidence)
        return next(sure, most)

    def waves(self) -> Iterator[int]:
        """How many answers are drawn at a time: each wave doubles what there is, so that they are
        few, and at most half of the answers come too late to matter.
        """
        drawn, target = 0, self.first_wave
        while drawn < self.votes:
            target = min(target, self.votes)
            yield target - drawn
            drawn, target = target, 2 * target

    @property
    def widest_wave(self) -> int:
        """The most answers that an engine makes at once."""
        return max(self.waves())

    @property
    def rule(self) -> Rule:
        """What ends the vote after a wave."""
        return Rule(self.confidence, self.first_wave, min_samples=0, by_view=False)

    @property
    def lock(self) -> Rule:
        """What ends it in the middle of one: no outcome of the others could change the label.

        Nothing less does. Short answers come first, so those that are there are no fair sample.
        """
        return Rule(1.0, self.votes // 2 + 1, min_samples=0, by_view=False)


def plan_vote(asked: Asked, settings: TenantSettings, max_votes: int) -> VotePlan | None:
    """How the request is voted on; None: it is answered once.

    What the request itself asks for is done or refused. The tenant's default is for requests that
    can be voted on, and others are answered as ever.

    Raises:
        BadRequest: it asks for votes, and for something that leaves nothing to vote on.
    """
    voting, said = settings.voting, asked.vote
    if asked.route == "completions" or (said is None and voting.votes == 1):
        return None
    is_default = said is None or said.votes is None
    wanted = voting.votes if said is None or said.votes is None else said.votes
    if wanted == 1:
        return None
    obstacle = _obstacle(asked)
    if obstacle is not None:
        if is_default:
            return None
        raise BadRequest(f"`ttrl.votes` and {obstacle[1]}", param=obstacle[0])
    return VotePlan(
        wanted=wanted,
        votes=min(wanted, max_votes, voting.max_votes or max_votes),
        confidence=(said and said.confidence) or voting.confidence,
        spec=_spec(asked, settings),
    )


def _obstacle(asked: Asked) -> tuple[str, str] | None:
    """The field that leaves nothing to vote on, and why."""
    if asked.upstream.get("n", 1) > 1:
        return "n", "`n` exclude each other: a vote returns one answer."
    if asked.upstream.get("temperature") == 0:
        return "temperature", "`temperature: 0` exclude each other: all answers would be the same."
    if asked.upstream.get("top_k") == 1:
        return "top_k", "`top_k: 1` exclude each other: all answers would be the same."
    return None


def _spec(asked: Asked, settings: TenantSettings) -> AnswerSpec:
    """The tenant's kind of answer; structured output is JSON where that looks for any answer."""
    form = asked.upstream.get("response_format")
    if form is not None and form["type"] != "text" and settings.answer == "auto":
        return AnswerSpec("json")
    return spec_of(settings)
