"""What is not served is told by name, in OpenAI's shape."""

from __future__ import annotations

import openai
import pytest

from server.gateway.unserved import METHODS, UNSERVED
from tests.server.gateway.conftest import Stack

PATHS = [path.replace("{rest:path}", "some/thing") for path in UNSERVED]


async def test_every_path_and_method(stack: Stack):
    async with stack.http() as http:
        for path in PATHS:
            for method in METHODS:
                response = await http.request(method, f"/v1{path}")
                assert response.status_code == 404
                error = response.json()["error"]
                if not path.startswith("/messages"):
                    assert error["code"] == "not_served"
                    assert error["type"] == "invalid_request_error"
                assert f"/v1{path} is not served" in error["message"]


async def test_the_official_client_says_so_at_once(stack: Stack):
    async with stack.openai() as client:
        with pytest.raises(openai.NotFoundError, match="has no embeddings"):
            await client.embeddings.create(model="ttrl", input="a")
        with pytest.raises(openai.NotFoundError, match="generates text only"):
            await client.images.generate(model="ttrl", prompt="a")
        with pytest.raises(openai.NotFoundError, match="is not served"):
            await client.moderations.create(input="a")


async def test_what_is_served_is_not_in_the_way(stack: Stack):
    async with stack.http() as http:
        assert (await http.get("/v1/chat/completions")).status_code == 405
        assert (await http.get("/v1/responses")).status_code == 405
        assert (await http.get("/v1/unheard-of")).json()["error"]["code"] == "not_found"
