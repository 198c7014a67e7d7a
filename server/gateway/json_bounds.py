"""What a body may hold whatever its fields mean: how deep it nests, how large its integers are.

Free-form values (a tool's schema, metadata) are decoded, sent on, logged, spooled and shown to
operators. Each of these has a limit of its own, from 250 levels on and at 64 bits. A body over any
of them must be refused before an engine works for it, not fail somewhere behind the answer.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final

from server.errors import BadRequest

MAX_DEPTH: Final = 100  # objects and lists within one another, the body's own included
SMALLEST, LARGEST = -(2**63), 2**64 - 1  # what the spool's format has a form for

_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_INTEGER = re.compile(rb"(?<![0-9.eE+-])(-?)([0-9]{19,})(?![0-9.eE])")
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def check_json(body: bytes) -> None:
    """Refuse what would break later. `body` is valid JSON; most bodies are told by a glance.

    Raises:
        BadRequest: it is nested too deeply, or an integer in it is too large.
    """
    may_be_deep = body.count(b"{") + body.count(b"[") > MAX_DEPTH
    may_be_large = _LONG_NUMBER.search(body) is not None
    if not may_be_deep and not may_be_large:
        return
    rest = _STRING.sub(b'""', body)
    if may_be_deep:
        brackets = rest.translate(None, _ALL_BUT_BRACKETS)
        if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_DEPTH:
            raise BadRequest("The body is nested too deeply.")
    if may_be_large and any(_is_too_large(sign, digits) for sign, digits in _INTEGER.findall(rest)):
        raise BadRequest("An integer in the body does not fit into 64 bits.")


def _is_too_large(sign: bytes, digits: bytes) -> bool:
    digits = digits.lstrip(b"0")
    return len(digits) > 20 or not SMALLEST <= int(sign + (digits or b"0")) <= LARGEST
