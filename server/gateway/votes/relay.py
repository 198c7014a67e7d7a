"""Answers one request by a vote: whole, or as a stream that says how far the vote is."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from starlette.types import Receive, Send

from server.errors import EngineFailed
from server.gateway.call import Call
from server.gateway.client_side import ClientLeft
from server.gateway.relay import TOO_SLOW, EventStream, send_whole, stream
from server.gateway.rendering import Rendering
from server.gateway.transcript import read_chunk
from server.gateway.votes.plan import VotePlan
from server.gateway.votes.poll import OnProgress, Poll, Progress
from server.gateway.votes.sampler import EngineSampler
from server.gateway.votes.wording import ChosenAnswer, comment, told


async def relay_vote(call: Call, plan: VotePlan, receive: Receive, send: Send) -> None:
    """Vote, log all answers, send the chosen one.

    Raises:
        TTRLError, ClientLeft: as `relay_whole` and `relay_stream`.
    """
    said = {"votes": plan.votes, "confidence": plan.confidence}
    call.asked = replace(call.asked, params=call.asked.params | {"ttrl": said})
    if call.asked.stream:
        await stream(call, receive, send, partial(_stream_vote, plan))
    else:
        await _relay_whole(call, plan, receive, send)


async def _relay_whole(call: Call, plan: VotePlan, receive: Receive, send: Send) -> None:
    try:
        async with call.watched(receive):
            answer, ttrl = await _vote(call, plan, None)
    except ClientLeft:
        await call.record_failure("aborted")
        raise
    except TimeoutError:
        raise EngineFailed(TOO_SLOW) from None
    call.saw_first_byte()
    data = msgspec.json.encode(answer.whole())
    body: Any = msgspec.json.decode(call.rendering().whole(data, read_chunk(data)))
    await send_whole(call, msgspec.json.encode(body | {"ttrl": ttrl}), send)


async def _stream_vote(plan: VotePlan, call: Call, out: EventStream, rendering: Rendering) -> None:
    async def on_progress(progress: Progress) -> None:
        call.saw_first_byte()
        await out.send(comment(progress))

    answer, ttrl = await _vote(call, plan, on_progress)
    if call.asked.route != "chat":  # whose events have a place for it
        await out.send(b": ttrl " + msgspec.json.encode(ttrl) + b"\n\n")
    for event in map(msgspec.json.encode, answer.chunks(ttrl)):
        if events := rendering.event(event, read_chunk(event)):
            await out.send(events)


async def _vote(
    call: Call, plan: VotePlan, on_progress: OnProgress | None
) -> tuple[ChosenAnswer, dict[str, Any]]:
    """The chosen answer, which becomes the transcript's first, and what was voted."""
    sampler = EngineSampler(call)
    poll = Poll(plan, sampler, call.deps.judge, call.caller.tenant_id, on_progress)
    outcome = await poll.hold()
    samples, chosen = sampler.samples, outcome.chosen
    call.transcript.put_first(chosen.choice)
    answer = ChosenAnswer(call, chosen, samples[chosen.choice], sampler.usage())
    return answer, told(plan, outcome, len(samples))
