"""What each script is made of: named checks, run one after the other, and one line of JSON that
says what they found. Only the standard library, so that it runs in every client's environment.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

BASE_URL = os.environ.get("TTRL_TEST_URL", "")
"""The server, without a path."""
KEY = os.environ.get("TTRL_TEST_KEY", "")
"""A tenant's key."""
LIMITED_KEY = os.environ.get("TTRL_TEST_LIMITED_KEY", "")
"""The key of a tenant that may ask but little at once."""
V1 = f"{BASE_URL}/v1"
MODEL = "ttrl"
LABEL = os.environ.get("TTRL_TEST_LABEL", "")
"""What the server calls the version that answers."""

QUESTION = "What is 12+34?"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
ADD_SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 0, "maximum": 99},
        "b": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
}
"""Bounded, because a model that follows no thought would write digits for ever."""

Check = Callable[[], Any]


class Checks:
    """The checks of one client, in their order; `packages` are those under test."""

    def __init__(self, *packages: str) -> None:
        self._packages = packages
        self._checks: list[tuple[str, Check]] = []
        self._notes: list[str] = []

    def __call__(self, name: str) -> Callable[[Check], Check]:
        """Add a check, which may be a coroutine; `name` is what it exercises."""

        def add(check: Check) -> Check:
            self._checks.append((name, check))
            return check

        return add

    def note(self, text: str) -> None:
        """Say what the bundled model cannot show."""
        self._notes.append(text)

    def run(self) -> None:
        """Run all checks, print the line, and exit with 1 if one failed."""
        passed: list[str] = []
        failed: dict[str, str] = {}
        for name, check in self._checks:
            try:
                if inspect.iscoroutinefunction(check):
                    asyncio.run(check())
                else:
                    check()
            except Exception:
                failed[name] = traceback.format_exc(limit=-4)
                sys.stderr.write(f"--- {name}\n{traceback.format_exc()}\n")
            else:
                passed.append(name)
        report(self._packages, passed, failed, self._notes)
        sys.exit(1 if failed else 0)


def report(
    packages: tuple[str, ...], passed: list[str], failed: dict[str, str], notes: list[str]
) -> None:
    """Print the line that the runner reads."""
    versions = {package: version(package) for package in packages}
    print(json.dumps({"versions": versions, "passed": passed, "failed": failed, "notes": notes}))


def raises(kind: type[BaseException], action: Callable[[], Any]) -> Any:
    """The error of that class that the action raises."""
    try:
        value = action()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {value!r}")
