"""How many cases a fuzz test tries: a few in every test run, `TTRL_FUZZ` times as many in
`make fuzz`, which says how many there were.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings

F = TypeVar("F", bound=Callable[..., Any])

FACTOR = int(os.environ.get("TTRL_FUZZ", "1"))
FIXTURES = (
    HealthCheck.function_scoped_fixture,
    HealthCheck.nested_given,
    HealthCheck.data_too_large,
)
tried: Counter[str] = Counter()
"""The cases tried so far, by test."""


def fuzzed(num: int) -> Callable[[F], F]:
    """Try `num` cases (times `TTRL_FUZZ`), each of them counted. Goes above `given`."""

    def decorate(test: F) -> F:
        inner: Any = test.hypothesis.inner_test  # type: ignore[attr-defined]

        @functools.wraps(inner)
        def counted(*args: Any, **fields: Any) -> Any:
            tried[test.__name__] += 1
            return inner(*args, **fields)

        test.hypothesis.inner_test = counted  # type: ignore[attr-defined]
        return settings(
            max_examples=num * FACTOR,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, *FIXTURES],
            phases=[phase for phase in Phase if phase != Phase.explain],
            derandomize=FACTOR == 1,  # what every test run tries is the same everywhere
            database=None,
        )(test)

    return decorate
