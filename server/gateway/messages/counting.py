"""`/v1/messages/count_tokens`: the engine renders and counts; nothing is generated or logged."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.errors import EngineFailed
from server.gateway.admission import Visit
from server.gateway.client_side import ClientLeft, api_key, read_body
from server.gateway.deps import GatewayDeps
from server.gateway.engine_answer import MAX_ANSWER_BYTES
from server.gateway.engine_http import EngineResponse
from server.gateway.messages.parsing import parse_count
from server.observability.requests import observed
from server.tenants import Caller

TIMEOUT_S = 30.0
PATH = "/tokenize"


class _Count(msgspec.Struct):
    count: int


_DECODER = msgspec.json.Decoder(_Count)


class TokenCount(Response):
    """A response that counts while it is sent. Errors are raised before the first byte."""

    def __init__(self, deps: GatewayDeps) -> None:
        super().__init__()
        self._deps = deps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, check, ask an engine, answer."""
        deps = self._deps
        try:
            caller = await deps.tenants.caller(api_key(scope))
            observed(scope).let_in(caller.tenant_id, caller.tenant)
            with deps.admission.arrive(caller) as visit:
                count = await self._count(caller, visit, scope, receive)
        except ClientLeft:
            observed(scope).has_left = True
            return
        answer = Response(
            msgspec.json.encode({"input_tokens": count}), media_type="application/json"
        )
        answer.raw_headers.extend(visit.headers())
        await answer(scope, receive, send)

    async def _count(self, caller: Caller, visit: Visit, scope: Scope, receive: Receive) -> int:
        deps = self._deps
        with visit.body():
            body = await read_body(scope, receive, deps.settings)
        model, counted = parse_count(body, deps.settings)
        async with visit.seat(receive):
            version = await deps.tenants.resolve(caller, model)
            asked = msgspec.json.encode(counted | {"model": version.engine_name})
            headers = {"Content-Type": "application/json"}
            try:
                with deps.registry.lease(version):
                    async with (
                        asyncio.timeout(TIMEOUT_S),
                        deps.upstream.post(PATH, asked, headers, version) as response,
                    ):
                        return await _read(response)
            except TimeoutError:
                raise EngineFailed("The engine did not answer in time.") from None


async def _read(response: EngineResponse) -> int:
    data: Any = await response.read(MAX_ANSWER_BYTES)
    try:
        return _DECODER.decode(data).count
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise EngineFailed("The engine's answer cannot be read.") from None
