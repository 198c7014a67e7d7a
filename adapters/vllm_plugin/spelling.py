"""How single tokens are written, found out once for each.

With a request's log-probabilities vLLM returns the text of every token, and asks the tokenizer for
it each time: a fifth of what its web process does while a cycle samples. A token's text by itself
depends on nothing but its id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Spell = Callable[[Any, list[int]], list[str]]


class Spelling:
    """`plain`, asked once for each token of a tokenizer."""

    def __init__(self, plain: Spell) -> None:
        self._plain = plain
        self._tokenizer: Any = None
        self._known: dict[int, str] = {}  # no larger than the vocabulary

    def __call__(self, tokenizer: Any, token_ids: Sequence[int]) -> list[str]:
        """The text of each token."""
        if tokenizer is not self._tokenizer:  # an engine has one
            self._tokenizer, self._known = tokenizer, {}
        known = self._known
        try:
            return [known[token_id] for token_id in token_ids]
        except KeyError:
            spelt = self._plain(tokenizer, list(token_ids))
            known.update(zip(token_ids, spelt, strict=True))
            return spelt


def remember_spellings() -> None:
    """Make this process's vLLM do so. May be called any number of times.

    Raises:
        AttributeError: this vLLM does it in another way.
    """
    from vllm.v1.engine import logprobs

    plain: Any = logprobs.convert_ids_list_to_tokens
    if not isinstance(plain, Spelling):
        module: Any = logprobs
        module.convert_ids_list_to_tokens = Spelling(plain)
