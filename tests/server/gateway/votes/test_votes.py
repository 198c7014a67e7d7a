"""Majority answers: one of the majority is returned, and all are logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ttrl_client.types import Learning

from server.adaptation.served import is_like_sampling
from server.db.traffic import ServedQuery
from tests.fakes.vllm import ToolCall
from tests.server.gateway.conftest import Stack, chat, running
from tests.server.gateway.votes.asking import (
    CHAT,
    LIVE,
    boxed,
    refused,
    set_tenant,
    vote,
)


async def test_one_of_the_majority_is_returned_with_its_shares(stack: Stack):
    stack.fake.answers[LIVE] = boxed("7", "4", "4", "5")
    body = await vote(stack, ttrl={"votes": 8})
    assert body["choices"][0]["message"]["content"] == r"I think \boxed{4}"
    assert [choice["index"] for choice in body["choices"]] == [0]
    assert body["ttrl"] == {
        "label": "4",
        "reason": None,
        "majority_ratio": 0.5,
        "shares": [
            {"answer": "4", "share": 0.5},
            {"answer": "5", "share": 0.25},
            {"answer": "7", "share": 0.25},
        ],
        "votes": 8,
        "bounded": False,
        "sampled": 8,
        "cancelled": 0,
        "answers": 8,
        "decided": True,
    }


async def test_equal_answers_vote_together_however_they_are_written(stack: Stack):
    stack.fake.answers[LIVE] = boxed("1/2", "3", "0.5", "3", r"\frac{1}{2}")
    body = await vote(stack, ttrl={"votes": 5, "confidence": 1})
    assert body["ttrl"]["majority_ratio"] == 0.6
    assert body["choices"][0]["message"]["content"] == r"I think \boxed{1/2}"


async def test_a_vote_that_is_decided_ends(stack: Stack):
    stack.fake.answers[LIVE] = r"\boxed{4}"
    ttrl = (await vote(stack, ttrl={"votes": 16}))["ttrl"]
    assert (ttrl["votes"], ttrl["sampled"], ttrl["decided"]) == (16, 4, True)
    assert [request.body["n"] for request in stack.fake.received(CHAT)] == [4]


async def test_a_close_vote_is_not_called_decided(stack: Stack):
    stack.fake.answers[LIVE] = boxed("4", "5")
    ttrl = (await vote(stack, ttrl={"votes": 8}))["ttrl"]
    assert (ttrl["label"], ttrl["sampled"], ttrl["decided"]) == ("4", 8, False)


async def test_the_tokens_of_all_samples_are_counted_and_the_prompts_once(stack: Stack):
    stack.fake.answers[LIVE] = boxed("4", "55")
    usage = (await vote(stack, ttrl={"votes": 8}))["usage"]
    lengths = [len(text) + 1 for text in boxed("4", "55")]
    assert usage["completion_tokens"] == 4 * sum(lengths)
    one = (await vote(stack))["usage"]
    assert usage["prompt_tokens"] == one["prompt_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_all_samples_are_logged_and_the_returned_one_is_the_first(stack: Stack):
    stack.fake.answers[LIVE] = boxed("7", "4", "4", "4")
    body = await vote(stack, ttrl={"votes": 4}, temperature=0.8)
    [query] = await stack.queries()
    assert (query.id, query.eligible, query.status) == (body["id"], True, "ok")
    assert query.completion_tokens == body["usage"]["completion_tokens"]
    assert query.params["ttrl"] == {"votes": 4, "confidence": 0.95}
    answers = await stack.answers(query.id)
    assert [answer.text for answer in answers] == boxed("4", "7", "4", "4")
    assert {answer.finish_reason for answer in answers} == {"stop"}


async def test_the_logged_samples_are_votes_for_the_learner(stack: Stack):
    await vote(stack, ttrl={"votes": 4}, temperature=0.8, max_tokens=50)
    [query] = await stack.queries()
    answers = [(a.text, a.finish_reason) for a in await stack.answers(query.id)]
    served = ServedQuery(query.id, query.prompt, query.params, query.completion_tokens, answers)
    assert len(answers) == 4
    assert is_like_sampling(served, Learning(temperature=0.8, max_tokens=50))
    assert not is_like_sampling(served, Learning(temperature=1.0, max_tokens=50))


async def test_store_false_keeps_a_vote_out_of_the_log(stack: Stack):
    assert (await vote(stack, ttrl={"votes": 4}, store=False))["ttrl"]["sampled"] == 4
    assert await stack.queries() == []


async def test_the_servers_bound_holds(tmp_path: Path):
    async with running(tmp_path, max_votes=3) as stack:
        ttrl = (await vote(stack, ttrl={"votes": 16, "confidence": 1}))["ttrl"]
        assert (ttrl["votes"], ttrl["bounded"]) == (16, True)
        assert sum(request.body["n"] for request in stack.fake.received(CHAT)) <= 3
        await set_tenant(stack, voting={"max_votes": 5})
        await vote(stack, ttrl={"votes": 16, "confidence": 1})
        [_, query] = await stack.queries()
        assert query.params["ttrl"]["votes"] == 3


async def test_the_tenants_bound_holds(stack: Stack):
    await set_tenant(stack, voting={"max_votes": 2})
    ttrl = (await vote(stack, ttrl={"votes": 3}))["ttrl"]
    assert (ttrl["bounded"], ttrl["sampled"]) == (True, 2)


async def test_a_tenants_default_can_be_turned_off(stack: Stack):
    stack.fake.answers[LIVE] = r"\boxed{4}"
    await set_tenant(stack, voting={"votes": 4, "confidence": 0.8})
    body = await vote(stack)
    assert (body["ttrl"]["votes"], body["ttrl"]["sampled"]) == (4, 2)
    assert "ttrl" not in await vote(stack, ttrl={"votes": 1})


@pytest.mark.parametrize("field", [{"n": 2}, {"temperature": 0}, {"top_k": 1}])
async def test_what_leaves_nothing_to_vote_on(stack: Stack, field: dict[str, Any]):
    [name] = field
    said = await refused(stack, **chat(ttrl={"votes": 4}, **field))
    assert said == (400, "invalid_request", name)
    await set_tenant(stack, voting={"votes": 4})
    assert "ttrl" not in await vote(stack, **field)


@pytest.mark.parametrize("options", [{"votes": 0}, {"votes": "4"}, {"vote": 4}, {"confidence": 2}])
async def test_options_that_are_none(stack: Stack, options: dict[str, Any]):
    status, _, param = await refused(stack, **chat(ttrl=options))
    assert (status, (param or "").partition(".")[0]) == (400, "ttrl")
    assert stack.fake.received(CHAT) == []


async def test_text_completions_are_not_voted_on(stack: Stack):
    body = {"model": "ttrl", "prompt": "2+2", "ttrl": {"votes": 4}}
    assert await refused(stack, "/v1/completions", **body) == (400, "invalid_request", "ttrl")


async def test_tool_calls_are_equal_by_their_arguments(stack: Stack):
    calls = ['{"a": 1, "b": 2}', '{"a": 3}', '{"b":2,"a":1}']
    turns = iter(calls)
    stack.fake.answers[LIVE] = lambda ask: ToolCall("add", next(turns))
    tools = [{"type": "function", "function": {"name": "add"}}]
    body = await vote(stack, ttrl={"votes": 3, "confidence": 1}, tools=tools)
    assert body["ttrl"]["label"] == 'call [["add",{"a":1,"b":2}]]'
    [choice] = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    [call] = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": calls[0]}


async def test_structured_output_is_compared_as_json(stack: Stack):
    texts = ['{"x": 5}', '{"a": 1, "b": 2}', '{"b":2,"a":1}']
    stack.fake.answers[LIVE] = texts
    form = {"type": "json_object"}
    body = await vote(stack, ttrl={"votes": 3, "confidence": 1}, response_format=form)
    assert body["choices"][0]["message"]["content"] == texts[1]


async def test_answers_that_were_cut_off_do_not_vote(stack: Stack):
    stack.fake.answers[LIVE] = [r"\boxed{4}", r"\boxed{5}" + "." * 50, r"\boxed{5}" + "." * 50]
    body = await vote(stack, ttrl={"votes": 3, "confidence": 1}, max_tokens=20)
    assert (body["ttrl"]["label"], body["ttrl"]["answers"]) == ("4", 1)
    assert body["choices"][0]["finish_reason"] == "stop"


async def test_a_vote_without_answers_returns_the_first(stack: Stack):
    stack.fake.answers[LIVE] = ["I do not know", "Nor do I"]
    body = await vote(stack, ttrl={"votes": 4})
    assert (body["ttrl"]["label"], body["ttrl"]["reason"]) == (None, "no_answer")
    assert body["choices"][0]["message"]["content"] == "I do not know"


async def test_each_sample_has_a_seed_of_its_own(stack: Stack):
    stack.fake.answers[LIVE] = boxed(*"0123456789abcdef")
    await vote(stack, ttrl={"votes": 16}, seed=100)
    asked = [(request.body["seed"], request.body["n"]) for request in stack.fake.received(CHAT)]
    assert asked == [(100, 4), (104, 4), (108, 8)]
    ids = {request.headers["x-request-id"] for request in stack.fake.received(CHAT)}
    assert len(ids) == 3


async def test_log_probabilities_are_the_returned_answers(stack: Stack):
    stack.fake.answers[LIVE] = boxed("7", "4", "4", "4")
    body = await vote(stack, ttrl={"votes": 4}, logprobs=True)
    [choice] = body["choices"]
    tokens = [entry["token"] for entry in choice["logprobs"]["content"]]
    assert "".join(tokens[:-1]) == choice["message"]["content"]
