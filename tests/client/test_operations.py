from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from ttrl_client import AsyncTTRLClient, TTRLClient, _calls, types

from server.db.engine import Database
from tests.fakes.admin import AdminWorld

SAMPLE = {
    "name": "adder",
    "tenant": "adder",
    "settings": types.TenantSettings(),
    "key_id": 3,
    "cycle_id": 4,
    "number": 5,
    "version": 5,
}


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Method and path of each route of the admin API, by operation id."""
    data_dir: Path = tmp_path_factory.mktemp("openapi")
    database = Database(f"sqlite+aiosqlite:///{data_dir / 'never-opened.db'}")
    paths: dict[str, dict[str, Any]] = AdminWorld(database, data_dir).app.openapi()["paths"]
    return {
        operation["operationId"]: (method.upper(), path)
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


@pytest.mark.parametrize("kind", [TTRLClient, AsyncTTRLClient])
def test_every_route_has_a_method(kind: type, operations: dict[str, tuple[str, str]]):
    missing = [name for name in operations if not callable(getattr(kind, name, None))]

    assert missing == []


def test_every_described_call_is_a_route(operations: dict[str, tuple[str, str]]):
    described = {
        name
        for name, value in vars(_calls).items()
        if inspect.isfunction(value)
        and value.__module__ == _calls.__name__
        and not name.startswith("_")
    }

    assert described == operations.keys()


def test_every_call_goes_to_its_route(operations: dict[str, tuple[str, str]]):
    for name, (method, path) in operations.items():
        build = getattr(_calls, name)
        required = [
            parameter.name
            for parameter in inspect.signature(build).parameters.values()
            if parameter.default is inspect.Parameter.empty
        ]

        call = build(*(SAMPLE[parameter] for parameter in required))

        assert (call.method, _calls.PREFIX + call.path) == (method, path.format(**SAMPLE)), name


def test_both_clients_have_the_same_methods_with_the_same_documentation():
    for name, method in vars(TTRLClient).items():
        if not name.startswith("_"):
            other = getattr(AsyncTTRLClient, name)
            assert inspect.getdoc(method) == inspect.getdoc(other), name
            assert inspect.getdoc(method), name
