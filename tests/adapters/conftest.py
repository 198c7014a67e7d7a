from __future__ import annotations

from hypothesis import settings

# A busy machine must not fail a property; the same code meets the same examples on every machine.
settings.register_profile("adapters", deadline=None, derandomize=True)
settings.load_profile("adapters")
