"""The OpenAPI description is complete and comes from what is accepted."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel
from ttrl_client import types

from server.gateway import openapi
from server.gateway.allowlist import REFUSED, ChatRequest, CompletionRequest
from server.gateway.messages.allowlist import CountRequest, MessagesRequest
from server.gateway.responses.allowlist import ResponsesRequest
from tests.server.gateway.conftest import Stack

ANSWERS = {400, 401, 404, 408, 413, 429, 500, 502, 503}
ROUTES = {
    "/v1/chat/completions": ("post", ChatRequest, ANSWERS),
    "/v1/completions": ("post", CompletionRequest, ANSWERS),
    "/v1/responses": ("post", ResponsesRequest, ANSWERS),
    "/v1/messages": ("post", MessagesRequest, ANSWERS),
    "/v1/messages/count_tokens": ("post", CountRequest, ANSWERS),
    "/v1/feedback": ("post", None, {400, 401, 404, 408, 413, 429, 500, 503}),
    "/v1/feedback/batch": ("post", None, {400, 401, 408, 413, 429, 500, 503}),
    "/v1/models": ("get", None, {401, 500, 503}),
    "/v1/models/{model_id}": ("get", None, {401, 404, 500, 503}),
}


async def test_every_route_error_and_field_is_described(stack: Stack):
    schema: dict[str, Any] = stack.app.openapi()
    assert set(schema["paths"]) == set(ROUTES)
    for path, (method, struct, codes) in ROUTES.items():
        route = schema["paths"][path][method]
        assert route["description"]
        is_anthropic = path.startswith("/v1/messages")
        keys = ["apiKey", "anthropicKey"] if is_anthropic else ["apiKey"]
        assert sorted(route["security"], key=str) == [{key: []} for key in sorted(keys)]
        error = "AnthropicErrorBody" if is_anthropic else "ErrorBody"
        for code in codes:
            response = route["responses"][str(code)]
            assert response["description"]
            body = response["content"]["application/json"]["schema"]
            assert body == {"$ref": f"#/components/schemas/{error}"}
        if struct is not None:
            body = route["requestBody"]["content"]["application/json"]["schema"]
            fields = {field.encode_name for field in msgspec.structs.fields(struct)}
            assert set(body["properties"]) == fields
            assert all(field["description"] for field in body["properties"].values())
            assert "$ref" not in json.dumps(route["requestBody"])
    assert schema["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"


@pytest.mark.parametrize(
    ("path", "shape"),
    [("/v1/feedback", types.FeedbackCreate), ("/v1/feedback/batch", types.FeedbackBatchCreate)],
)
async def test_feedback_is_described_whole_and_without_references(
    stack: Stack, path: str, shape: type[BaseModel]
):
    route = stack.app.openapi()["paths"][path]["post"]
    body = route["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == set(shape.model_fields)
    assert all(field["description"] for field in body["properties"].values())
    assert "$ref" not in json.dumps(route["requestBody"])


STRUCTS = [ChatRequest, CompletionRequest, ResponsesRequest, MessagesRequest, CountRequest]


@pytest.mark.parametrize("struct", STRUCTS)
def test_no_field_is_both_accepted_and_refused(struct: type):
    assert not {field.name for field in msgspec.structs.fields(struct)} & set(REFUSED)


def test_no_description_of_a_field_that_is_gone():
    fields = {f.name for struct in STRUCTS for f in msgspec.structs.fields(struct)}
    assert set(openapi.FIELDS) == fields
    known = {f"{s.__name__}.{f.name}" for s in STRUCTS for f in msgspec.structs.fields(s)}
    assert set(openapi.OVERRIDES) <= known
