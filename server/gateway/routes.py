"""The routes of the data plane: OpenAI's chat completions, completions and models."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from server.gateway import openapi
from server.gateway.admission import Admission
from server.gateway.allowlist import ChatRequest, CompletionRequest
from server.gateway.client_side import api_key
from server.gateway.deps import GatewayDeps
from server.gateway.exchange import Exchange
from server.gateway.feedback import add_feedback
from server.gateway.parsing import parse_chat, parse_completion
from server.tenants import Caller

API_KEY = HTTPBearer(
    auto_error=False,
    scheme_name="apiKey",
    description="A tenant's API key: `Authorization: Bearer <key>`.",
)


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
    admission = Admission(deps.settings.max_in_flight)

    @router.post(
        "/chat/completions",
        response_class=Response,
        responses=openapi.answers("A chat completion.", "chat.completion.chunk"),
        openapi_extra={"requestBody": openapi.request_body(ChatRequest)},
    )
    async def chat_completions(request: Request) -> Response:
        """Answer a chat with the tenant's live adapter version, or the one that `model` names."""
        return Exchange(deps, admission, parse_chat)

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
        return Exchange(deps, admission, parse_completion)

    _add_models(router, deps)
    add_feedback(router, deps)
    return router


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
        numbers = await deps.tenants.version_numbers(caller)
        names = [served, f"{served}@base", *(f"{served}@v{number}" for number in numbers)]
        return ModelList(data=[await model(caller, name) for name in names])

    @router.get("/models/{model_id:path}", responses=openapi.errors(401, 404, 500, 503))
    async def retrieve_model(model_id: str, request: Request) -> Model:
        """Describe one of the names that this key can ask for."""
        return await model(await deps.tenants.caller(api_key(request.scope)), model_id)
