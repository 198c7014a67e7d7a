"""One request of the data plane from its first byte to its log row, as an ASGI application.

Not a FastAPI handler with a body model: pydantic would cost more than the rest of the way, and a
stream must stay in hand of one block that ends whatever it began.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from time import perf_counter

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.config import Settings
from server.gateway.call import Call
from server.gateway.client_side import ClientLeft, api_key, read_body
from server.gateway.demand import estimated_tokens, num_answers, used_tokens
from server.gateway.deps import GatewayDeps
from server.gateway.parsing import Asked
from server.gateway.relay import relay_stream, relay_whole
from server.gateway.votes.plan import VotePlan, plan_vote
from server.gateway.votes.relay import relay_vote
from server.leaving import LEAVING
from server.observability.requests import observed

Parse = Callable[[bytes, Settings], Asked]


class Exchange(Response):
    """A response that does its work while it is sent. Errors before the first byte are raised."""

    def __init__(self, deps: GatewayDeps, parse: Parse) -> None:
        super().__init__()
        self._deps = deps
        self._parse = parse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, check, ask an engine, relay, log."""
        try:
            await self._answer(scope, receive, send)
        except ClientLeft:
            observed(scope).has_left = True

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, deps, seen = perf_counter(), self._deps, observed(scope)
        created_at = deps.clock.now()
        caller = await deps.tenants.caller(api_key(scope))
        seen.let_in(caller.tenant_id, caller.tenant)
        if deps.traces is not None:
            seen.trace = deps.traces.begin(scope, seen)
        with deps.admission.arrive(caller) as visit:
            with visit.body():
                body = await read_body(scope, receive, deps.settings)
            asked = self._parse(body, deps.settings)
            plan = plan_vote(asked, caller.settings, deps.settings.max_votes)
            answers = num_answers(asked) if plan is None else plan.widest_wave
            tokens = estimated_tokens(asked, len(body), answers if plan is None else plan.votes)
            async with visit.seat(receive, answers, tokens):
                version = await deps.tenants.resolve(caller, asked.model)
                place = deps.recorder.reserve() if asked.store else nullcontext()
                with place, deps.registry.lease(version):
                    call = Call(
                        deps,
                        caller,
                        asked,
                        version,
                        started,
                        created_at,
                        visit.headers(),
                        seen=seen,
                        leaving=scope.get(LEAVING),
                    )
                    try:
                        await self._relay(call, plan, receive, send)
                    except ClientLeft:
                        seen.has_left = True
                    finally:
                        call.sum_up()
                visit.settle(used_tokens(call, tokens))  # also of a client that left before the end

    async def _relay(self, call: Call, plan: VotePlan | None, receive: Receive, send: Send) -> None:
        if plan is not None:
            await relay_vote(call, plan, receive, send)
        else:
            await (relay_stream if call.asked.stream else relay_whole)(call, receive, send)
