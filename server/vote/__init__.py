"""Votes on groups of responses that somebody has already: `ttrl-server vote`.

What the adaptation does with sampled groups, without engine, database or training.
"""

from server.vote.command import run_vote
from server.vote.groups import VoteRules

__all__ = ["VoteRules", "run_vote"]
