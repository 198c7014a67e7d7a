"""Estimators: from the ballots of a group to a label and rewards, without knowing any answer."""

from collections.abc import Callable, Mapping

from adapters.estimators.backed import Backed
from adapters.estimators.ballots import Ballot, Estimate, Estimator
from adapters.estimators.guard import Guard, Visit
from adapters.estimators.steady import Steady
from adapters.estimators.told import told
from adapters.estimators.votes import (
    Confidence,
    Harmony,
    Majority,
    MajorityStrict,
    Options,
    Selective,
    Soft,
)

ESTIMATORS: Mapping[str, Callable[[Options], Estimator]] = {
    "harmony": Harmony,
    "majority": Majority,
    "majority_strict": MajorityStrict,
    "soft": Soft,
    "selective": Selective,
    "confidence": Confidence,
}


def make_estimator(name: str, options: Options | None = None) -> Estimator:
    """The estimator of that name. Raises ValueError if there is none."""
    if name not in ESTIMATORS:
        raise ValueError(f"estimator: {name!r} is none of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name](options or Options())


__all__ = [
    "ESTIMATORS",
    "Backed",
    "Ballot",
    "Estimate",
    "Estimator",
    "Guard",
    "Options",
    "Steady",
    "Visit",
    "make_estimator",
    "told",
]
