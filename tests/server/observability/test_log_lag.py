"""The log as an operator reads it through a whole app, whose rows come after the answers."""

from __future__ import annotations

import pytest

from server.gateway import line
from tests.server.observability.conftest import ADMIN_KEY, Watched, bearer


async def test_an_operator_sees_an_answer_that_was_just_given(
    app: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "LEISURE_S", 3600)
    answer = await app.ask()
    listed = await app.http.get("/admin/v1/tenants/acme/queries", headers=bearer(ADMIN_KEY))
    assert [query["id"] for query in listed.json()["items"]] == [answer.json()["id"]]
