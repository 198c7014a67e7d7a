"""The routes of the data plane: OpenAI's chat completions, completions, responses and models, and
Anthropic's messages.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from server.gateway import openapi
from server.gateway.allowlist import ChatRequest, CompletionRequest
from server.gateway.client_side import api_key
from server.gateway.deps import GatewayDeps
from server.gateway.exchange import Exchange
from server.gateway.feedback import add_feedback
from server.gateway.messages.allowlist import CountRequest, MessagesRequest
from server.gateway.messages.counting import TokenCount
from server.gateway.messages.parsing import parse_messages
from server.gateway.parsing import parse_chat, parse_completion
from server.gateway.responses.allowlist import ResponsesRequest
from server.gateway.responses.parsing import parse_responses
from server.gateway.unserved import add_unserved
from server.observability.requests import observed
from server.tenants import Caller

API_KEY = HTTPBearer(
    auto_error=False,
    scheme_name="apiKey",
    description="A tenant's API key: `Authorization: Bearer <key>`.",
)
ANTHROPIC_KEY = APIKeyHeader(
    name="x-api-key",
    auto_error=False,
    scheme_name="anthropicKey",
    description="The same key, as Anthropic's clients send it.",
)


class TokenCountAnswer(BaseModel):
    """How long a conversation is."""

    model_config = ConfigDict(frozen=True)

    input_tokens: int = Field(description="Tokens of the conversation as the engine renders it.")


class Model(BaseModel):
    """A name that can be asked for."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="What goes into `model`.")
    object: str = Field(default="model", description="Always `model`.")
    created: int = Field(description="When this server started, in Unix seconds.")
    owned_by: str = Field(description="The tenant.")
    adapter: str = Field(description="The adapter version behind the name at the moment.")


class ModelList(BaseModel):
    """The names that this key can ask for."""

    model_config = ConfigDict(frozen=True)

    object: str = Field(default="list", description="Always `list`.")
    data: list[Model]


def gateway_router(deps: GatewayDeps) -> APIRouter:
    """The data plane under `/v1`."""
    router = APIRouter(prefix="/v1", tags=["openai"], dependencies=[Security(API_KEY)])

    @router.post(
        "/chat/completions",
        response_class=Response,
        responses=openapi.answers("A chat completion.", "chat.completion.chunk"),
        openapi_extra={"requestBody": openapi.request_body(ChatRequest)},
    )
    async def chat_completions(request: Request) -> Response:
        """Answer a chat with the tenant's live adapter version, or the one that `model` names."""
        return Exchange(deps, parse_chat)

    @router.post(
        "/completions",
        response_class=Response,
        responses=openapi.answers("A text completion.", "text_completion"),
        openapi_extra={"requestBody": openapi.request_body(CompletionRequest)},
    )
    async def completions(request: Request) -> Response:
        """Complete a prompt with the tenant's live adapter version, or the one that `model` names.
        Logged, but never learned from.
        """
        return Exchange(deps, parse_completion)

    _add_responses(router, deps)
    _add_messages(router, deps)
    _add_models(router, deps)
    add_feedback(router, deps)
    add_unserved(router)
    return router


def _add_responses(router: APIRouter, deps: GatewayDeps) -> None:
    @router.post(
        "/responses",
        response_class=Response,
        responses=openapi.typed_answers("A response.", "response.completed"),
        openapi_extra={"requestBody": openapi.request_body(ResponsesRequest)},
    )
    async def responses(request: Request) -> Response:
        """Answer with the tenant's live adapter version, or the one that `model` names. Logged and
        learned from as a chat. No response is kept: the conversation comes with each request.
        """
        return Exchange(deps, parse_responses)


def _add_messages(router: APIRouter, deps: GatewayDeps) -> None:
    anthropic = APIRouter(dependencies=[Security(ANTHROPIC_KEY)])
    shape = openapi.AnthropicErrorBody

    @anthropic.post(
        "/messages",
        response_class=Response,
        responses=openapi.typed_answers("A message.", "message_stop", model=shape),
        openapi_extra={"requestBody": openapi.request_body(MessagesRequest)},
    )
    async def messages(request: Request) -> Response:
        """Answer with the tenant's live adapter version, or the one that `model` names. Logged and
        learned from as a chat.
        """
        return Exchange(deps, parse_messages)

    @anthropic.post(
        "/messages/count_tokens",
        response_class=Response,
        responses={
            200: {"model": TokenCountAnswer, "description": "How long the conversation is."},
            **openapi.errors(*openapi.ANSWER_ERRORS, model=shape),
        },
        openapi_extra={"requestBody": openapi.request_body(CountRequest)},
    )
    async def count_tokens(request: Request) -> Response:
        """Count the tokens of a conversation. Nothing is generated or logged."""
        return TokenCount(deps)

    router.include_router(anthropic)


def _add_models(router: APIRouter, deps: GatewayDeps) -> None:
    created = int(deps.clock.now().timestamp())
    served = deps.settings.served_model_name

    async def model(caller: Caller, name: str) -> Model:
        version = await deps.tenants.resolve(caller, name)
        return Model(id=name, created=created, owned_by=caller.tenant, adapter=version.label)

    @router.get("/models", responses=openapi.errors(401, 500, 503))
    async def list_models(request: Request) -> ModelList:
        """List the names that this key can ask for: the live version, the base model, and each of
        the tenant's own versions, newest first.
        """
        caller = await deps.tenants.caller(api_key(request.scope))
        observed(request.scope).let_in(caller.tenant_id, caller.tenant)
        numbers = await deps.tenants.version_numbers(caller)
        names = [served, f"{served}@base", *(f"{served}@v{number}" for number in numbers)]
        return ModelList(data=[await model(caller, name) for name in names])

    @router.get("/models/{model_id:path}", responses=openapi.errors(401, 404, 500, 503))
    async def retrieve_model(model_id: str, request: Request) -> Model:
        """Describe one of the names that this key can ask for."""
        caller = await deps.tenants.caller(api_key(request.scope))
        observed(request.scope).let_in(caller.tenant_id, caller.tenant)
        return await model(caller, model_id)
