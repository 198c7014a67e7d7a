from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.gateway.rewriting import Rewriter

ANSWER_ID, ENGINE, SERVED, LABEL = "chatcmpl-0", "t1-a--v1", "ttrl", "a--v1"
HEAD = {"id": ANSWER_ID, "object": "chat.completion.chunk", "created": 1, "model": ENGINE}
HOSTILE = st.sampled_from(
    [
        f'"model":"{ENGINE}",',
        json.dumps(HEAD, separators=(",", ":")),
        '"system_fingerprint":"x"',
        "\\",
        "four",
    ]
)
# What vLLM writes, and what it might write one day: other orders, values and fields.
HEADS = st.sampled_from(
    [
        HEAD,
        HEAD,
        HEAD | {"created": 2},
        HEAD | {"id": "other"},
        HEAD | {"system_fingerprint": "engine's"},
        dict(reversed(HEAD.items())),
        {},
    ]
)
TAILS = st.fixed_dictionaries(
    {"choices": st.lists(st.fixed_dictionaries({"text": HOSTILE}), max_size=2)},
    optional={"usage": st.just({"model": ENGINE}), "system_fingerprint": st.just("engine's")},
)


def _rewriter() -> Rewriter:
    return Rewriter(answer_id=ANSWER_ID, engine_name=ENGINE, served_name=SERVED, label=LABEL)


@given(st.lists(st.tuples(HEADS, TAILS), max_size=6))
def test_each_event_of_a_stream_gets_public_names_and_nothing_else(
    events: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    rewriter = _rewriter()
    for head, tail in events:
        event = head | tail
        data = json.dumps(event, separators=(",", ":")).encode()
        names = {"id": ANSWER_ID, "model": SERVED, "system_fingerprint": LABEL}
        rewritten = json.loads(rewriter.event(data), object_pairs_hook=_once)
        assert rewritten == event | names


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; no name may be there twice."""
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)
