"""Every operation that the OpenAPI document describes, asked by schemathesis with what the document
allows and with what it does not: no 500, nothing that is not documented, no hang.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import given
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fuzz.bodies import VALID, bodies
from tests.fuzz.cases import fuzzed
from tests.fuzz.live_app import ADMIN_KEY, API_KEY, LiveApp, live_app

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
TIMEOUT_S = 60.0  # a hang, also on a machine that is busy


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Any) -> Generator[LiveApp]:
    with live_app(tmp_path_factory.mktemp("live"), sqlite_template) as app:
        yield app


def key_for(path: str) -> dict[str, str]:
    key = ADMIN_KEY if path.startswith("/admin") else API_KEY
    return {"Authorization": f"Bearer {key}"}


def test_every_operation_of_the_document(app: LiveApp) -> None:
    schema = schemathesis.openapi.from_dict(app.document)
    schema.config.update(base_url=app.url)
    results: list[Any] = list(schema.get_all_operations())
    found = [result.ok() for result in results]
    assert len(found) > 30
    problems: list[str] = []
    for operation in found:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                ask(operation, mode)
            except (FailureGroup, AssertionError, OSError) as error:
                problems.append(f"{operation.label}: {error}"[:2000])
    assert problems == [], "\n\n".join(problems)


def ask(operation: Any, mode: GenerationMode) -> None:
    strategy: Any = operation.as_strategy(generation_mode=mode)

    @fuzzed(1)
    @given(strategy)
    def openapi_case(case: Any) -> None:
        response = case.call(headers=key_for(operation.path), timeout=TIMEOUT_S)
        case.validate_response(response, checks=CHECKS, headers=key_for(operation.path))

    with suppress(Unsatisfiable):  # nothing that can be wrong: no parameters, no body
        openapi_case()


@pytest.mark.parametrize("path", VALID)
def test_any_body_gets_an_answer_or_a_clear_error(app: LiveApp, path: str) -> None:
    with httpx.Client(base_url=app.url, headers=key_for(path), timeout=TIMEOUT_S) as http:

        @fuzzed(5)
        @given(bodies(path))
        def any_body(body: bytes) -> None:
            response = http.post(path, content=body)
            assert response.status_code in (200, 400, 404), response.text
            if response.status_code != 200:
                assert response.json()["error"]["message"]

        any_body()
