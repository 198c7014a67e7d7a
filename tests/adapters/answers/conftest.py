from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.answers import Equivalence


@pytest.fixture(scope="session")
def equivalence() -> Iterator[Equivalence]:
    """One with a real judge, shared because the judge takes seconds to start."""
    with Equivalence(deadline_s=20.0) as shared:
        yield shared
