from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.db.engine import Database
from tests.fakes.admin import AdminWorld

METHODS = {"get", "put", "post", "delete", "patch"}
ERROR_SCHEMA = {"$ref": "#/components/schemas/ErrorBody"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data_dir: Path = tmp_path_factory.mktemp("openapi")
    database = Database(f"sqlite+aiosqlite:///{data_dir / 'never-opened.db'}")
    return AdminWorld(database, data_dir).app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert method in METHODS
            yield path, method, operation


def test_every_operation_says_what_it_does(document: dict[str, Any]):
    for path, method, operation in operations(document):
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)
        assert operation["tags"], (method, path)
        assert operation["security"] == [{"adminKey": []}], (method, path)


def test_operation_ids_are_unique_plain_names(document: dict[str, Any]):
    ids = [operation["operationId"] for _, _, operation in operations(document)]

    assert len(ids) == len(set(ids)) == 20
    assert all(name.isidentifier() and name.islower() for name in ids)


def test_every_operation_describes_its_errors_in_openais_shape(document: dict[str, Any]):
    for path, method, operation in operations(document):
        responses = operation["responses"]
        expected = {"400", "401", "500", "503", "default"}
        expected |= {"404"} if "{name}" in path else set()
        expected |= {"413"} if "requestBody" in operation else set()
        assert expected <= responses.keys(), (method, path)
        assert "422" not in responses
        for code, response in responses.items():
            assert response["description"], (method, path, code)
            if not code.startswith("2"):
                assert response["content"]["application/json"]["schema"] == ERROR_SCHEMA


def test_every_success_has_a_schema(document: dict[str, Any]):
    for path, method, operation in operations(document):
        [(code, response)] = [
            item for item in operation["responses"].items() if item[0].startswith("2")
        ]
        if code != "204":
            assert "$ref" in response["content"]["application/json"]["schema"], (method, path)


def test_every_parameter_is_described(document: dict[str, Any]):
    for path, method, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (method, path, parameter["name"])


def test_every_field_is_described(document: dict[str, Any]):
    silent = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, content in schema.get("properties", {}).items()
        if not content.get("description")
    ]

    assert silent == []


def test_every_schema_is_described(document: dict[str, Any]):
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), name
