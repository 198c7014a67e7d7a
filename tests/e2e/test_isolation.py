"""Two tenants with markers on one engine: every answer comes from the version that its header
names, whatever is promoted and rolled back meanwhile, and nobody reaches another's versions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from ttrl_client import ConflictError
from ttrl_client.types import Swap

from tests.e2e.live import CHAT, LiveServer, question_body
from tests.e2e.markers import GREEDY, QUESTION, answer, markers, publish
from tests.e2e.traffic import Reply, User

pytestmark = pytest.mark.engine

NUM_VERSIONS: Mapping[str, int] = {"marked-a": 4, "marked-b": 3}
A, B = NUM_VERSIONS
NUM_REQUESTS = 240  # a sixth of them pinned
NUM_SWAPS = 24
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Marked:
    """A tenant, and what each of its versions answers; version 0 as the base model."""

    name: str
    tenant_id: int
    key: str
    texts: Mapping[int, str]
    engine_names: Mapping[int, str]

    def label(self, number: int) -> str:
        """A version's public name."""
        return f"{self.name}--v{number}"

    def text_of(self, label: str | None) -> str | None:
        """What the version with this public name answers."""
        return {self.label(number): text for number, text in self.texts.items()}.get(label or "")


@dataclass(frozen=True, slots=True)
class Stage:
    """The session's server with both tenants."""

    live: LiveServer
    tenants: Mapping[str, Marked]

    def ask(self, tenant: str, **params: Any) -> httpx.Response:
        """Ask the question once, as a tenant."""
        headers = {"Authorization": f"Bearer {self.tenants[tenant].key}"}
        url = self.live.base_url + str(params.pop("path", CHAT))
        body = params.pop("body", None) or question_body(QUESTION, **GREEDY, **params)
        return httpx.post(url, json=body, headers=headers, timeout=120, trust_env=False)

    def go_to_base(self) -> None:
        """Make version 0 live for both."""
        for name in self.tenants:
            if self.live.admin.read_tenant(name).live_version:
                self.live.admin.rollback(name, 0)


@pytest.fixture(scope="module")
def stage(live: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Stage]:
    live.wait_ready()
    base = answer(live, "identity")
    assert base.is_clear
    marks = markers(live, tmp_path_factory.mktemp("markers"), seed=100)
    tenants: dict[str, Marked] = {}
    for name, num_versions in NUM_VERSIONS.items():
        _, key = live.make_tenant(name)
        texts, engine_names = {0: base.text}, {0: "identity"}
        for number, mark in enumerate(islice(marks, num_versions), 1):
            engine_names[number] = publish(live, name, number, mark.source).engine_name
            texts[number] = mark.text
        tenant_id = live.admin.read_tenant(name).id
        tenants[name] = Marked(name, tenant_id, key, texts, engine_names)
    stage = Stage(live, tenants)
    yield stage
    stage.go_to_base()


@pytest.mark.parametrize("name", NUM_VERSIONS)
def test_a_pinned_version_answers_as_itself(stage: Stage, name: str) -> None:
    marked = stage.tenants[name]
    assert len(set(marked.texts.values())) == NUM_VERSIONS[name] + 1
    for number, text in marked.texts.items():
        response = stage.ask(name, model="ttrl@base" if number == 0 else f"ttrl@v{number}")
        assert response.headers["x-ttrl-adapter"] == marked.label(number)
        assert response.json()["choices"][0]["message"]["content"] == text


def test_the_tenants_share_no_answer_but_the_bases(stage: Stage) -> None:
    a, b = (set(stage.tenants[name].texts.values()) for name in (A, B))
    assert a & b == {stage.tenants[A].texts[0]}


# ---- versions that come and go while many ask


@dataclass(frozen=True, slots=True)
class Asked:
    """One request with its reply; times are monotonic seconds."""

    tenant: str
    model: str
    reply: Reply
    ended: float


@dataclass(frozen=True, slots=True)
class Move:
    """A tenant's pointer was moved between the two times."""

    tenant: str
    swap: Swap | None  # None: where it stood at the start
    begun: float
    ended: float


@dataclass
class Crowd:
    """Users of both tenants who ask until there were enough requests, and enough swaps."""

    stage: Stage
    asked: list[Asked] = field(default_factory=list[Asked])
    swapped: threading.Event = field(default_factory=threading.Event)

    def ask(self, number: int) -> None:
        """One user, each of whose requests is of the other tenant than the one before."""
        users = {n: User(self.stage.live.base_url, t.key) for n, t in self.stage.tenants.items()}
        models = cycle(("ttrl", "ttrl", "ttrl", "ttrl@base", "ttrl", "ttrl@v1"))
        for at, (tenant, model) in enumerate(zip(cycle(users), models, strict=False), number):
            if len(self.asked) >= NUM_REQUESTS and self.swapped.is_set():
                break
            # The position in both cycles differs by user, so that all combinations meet.
            stream = at // 2 % 2 == 0
            reply = users[tenant].ask(QUESTION, stream=stream, model=model, **GREEDY)
            self.asked.append(Asked(tenant, model, reply, time.monotonic()))
        for user in users.values():
            user.close()

    def swap(self) -> list[Move]:
        """Promote and roll back, evenly spread over the requests."""
        ever = float("-inf")
        moves = [Move(name, None, ever, ever) for name in self.stage.tenants]
        try:
            for at, tenant in zip(range(NUM_SWAPS), cycle(self.stage.tenants), strict=False):
                due = at * NUM_REQUESTS // NUM_SWAPS
                self.stage.live.wait_for(
                    lambda due=due: len(self.asked) >= due, f"request {due}", 300, poll_s=0.01
                )
                moves.append(self._move(tenant, at // 2))
        finally:
            self.swapped.set()
        return moves

    def _move(self, tenant: str, at: int) -> Move:
        admin, begun = self.stage.live.admin, time.monotonic()
        if at % 3 == 2:
            swap = admin.rollback(tenant, 0 if at % 2 else None)
        else:
            live = admin.read_tenant(tenant).live_version
            others = [n for n in self.stage.tenants[tenant].texts if n not in (0, live)]
            swap = admin.promote(tenant, others[at % len(others)])
        return Move(tenant, swap, begun, time.monotonic())


def was_live(asked: Asked, moves: list[Move]) -> bool:
    """Whether the version that the header names was live at some time during the request."""
    own = [move for move in moves if move.tenant == asked.tenant]
    ends = [move.ended for move in own[1:]] + [float("inf")]
    return any(
        begin.begun <= asked.ended and asked.reply.started <= end
        for begin, end in zip(own, ends, strict=True)
        if asked.reply.adapter == f"{asked.tenant}--v{begin.swap.to_version if begin.swap else 0}"
    )


def test_every_answer_comes_from_the_version_that_its_header_names(stage: Stage) -> None:
    stage.go_to_base()
    crowd = Crowd(stage)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asking = [pool.submit(crowd.ask, number) for number in range(AT_ONCE)]
        moves = crowd.swap()
        for user in asking:
            user.result()
    check_crowd(stage, crowd.asked, moves)


def check_crowd(stage: Stage, asked: list[Asked], moves: list[Move]) -> None:
    """What must hold of the requests and the moves."""
    assert [one for one in asked if not one.reply.is_whole] == []
    assert [one for one in asked if one.reply.fingerprints != {one.reply.adapter}] == []
    wrong = [
        one
        for one in asked
        if one.reply.text != stage.tenants[one.tenant].text_of(one.reply.adapter)
    ]
    assert wrong == []
    live = [one for one in asked if one.model == "ttrl"]
    assert [one for one in live if not was_live(one, moves)] == []
    pinned = {"ttrl@base": 0, "ttrl@v1": 1}
    assert [
        one
        for one in asked
        if one.model in pinned and one.reply.adapter != f"{one.tenant}--v{pinned[one.model]}"
    ] == []
    # It was the crowd that it should have been.
    assert len([move for move in moves if move.swap]) == NUM_SWAPS
    assert len(asked) >= NUM_REQUESTS
    assert {one.reply.is_streamed for one in live} == {True, False}
    for tenant in stage.tenants:
        assert len({one.reply.adapter for one in live if one.tenant == tenant}) >= 3


def test_every_answer_is_logged_under_its_version(stage: Stage) -> None:
    for tenant, marked in stage.tenants.items():
        user = User(stage.live.base_url, marked.key)
        models = ["ttrl", "ttrl@base", *(f"ttrl@v{number}" for number in marked.texts if number)]
        replies = [user.ask(QUESTION, model=model, **GREEDY) for model in models]
        user.close()
        logged = {query.id: query for query in stage.live.admin.list_queries(tenant).items}
        for reply in replies:
            query = logged[str(reply.id)]
            assert reply.adapter == f"{tenant}--v{query.adapter_version}"
            assert query.answers[0].text == reply.text


def test_a_rollback_goes_back_and_no_further(stage: Stage) -> None:
    stage.go_to_base()
    admin = stage.live.admin
    admin.promote(A, 2)
    admin.promote(A, 4)
    assert admin.rollback(A).to_version == 2
    response = stage.ask(A)
    assert response.headers["x-ttrl-adapter"] == stage.tenants[A].label(2)
    assert response.json()["choices"][0]["message"]["content"] == stage.tenants[A].texts[2]
    with pytest.raises(ConflictError):
        admin.promote(A, 2)


# ---- another tenant's versions


def foreign_names(stage: Stage) -> list[str]:
    """Names that lead to something, though not for tenant B."""
    a = stage.tenants[A]
    only_a = max(a.texts)
    place = Path(stage.live.settings.adapters_dir) / f"t{a.tenant_id}" / f"v{only_a}"
    return [
        f"ttrl@v{only_a}",
        a.label(only_a),
        f"ttrl@{a.label(only_a)}",
        a.engine_names[only_a],
        f"ttrl@{a.engine_names[only_a]}",
        stage.tenants[B].engine_names[1],  # its own, by the engine's name
        "identity",
        "base",
        "ttrl@identity",
        "ttrl@live",
        str(place),
        f"ttrl@{place}",
        f"ttrl@../t{a.tenant_id}/v{only_a}",
        f"ttrl@v1/../../t{a.tenant_id}/v{only_a}",
        f"../adapters/t{a.tenant_id}/v{only_a}",
        f"ttrl@v{only_a} ",
        f"ttrl@v{only_a}\x00",
        f"ttrl@V{only_a}",
        f"TTRL@v{only_a}",
        f"{A}@v{only_a}",
    ]


def test_another_tenants_version_is_a_404_like_one_that_never_was(stage: Stage) -> None:
    assert stage.ask(A, model=f"ttrl@v{max(stage.tenants[A].texts)}").status_code == 200
    never = stage.ask(B, model="ttrl@v77").json()["error"]
    for model in foreign_names(stage):
        for path in (CHAT, "/v1/completions"):
            prompt = {"messages": [{"role": "user", "content": "1+1"}]}
            body = {"model": model} | (prompt if path == CHAT else {"prompt": "1+1"})
            response = stage.ask(B, path=path, body=body)
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (404, "model_not_found"), model
            assert error.keys() == never.keys()
            assert (error["type"], error["param"]) == (never["type"], never["param"])
            assert "x-ttrl-adapter" not in response.headers
    number = max(stage.tenants[A].texts)
    theirs = stage.ask(B, model=f"ttrl@v{number}").json()["error"]
    assert theirs["message"] == never["message"].replace("77", str(number))


def test_each_tenant_lists_its_own_versions_only(stage: Stage) -> None:
    for name, marked in stage.tenants.items():
        headers = {"Authorization": f"Bearer {marked.key}"}
        url = f"{stage.live.base_url}/v1/models"
        listed = httpx.get(url, headers=headers, trust_env=False).json()["data"]
        own = {f"ttrl@v{number}" for number in marked.texts if number}
        assert {model["id"] for model in listed} >= own, name
        assert not any("--" in model["id"] for model in listed)
        foreign = httpx.get(f"{url}/ttrl@v77", headers=headers, trust_env=False)
        assert foreign.status_code == 404
    theirs = f"{stage.live.base_url}/v1/models/ttrl@v{max(stage.tenants[A].texts)}"
    headers = {"Authorization": f"Bearer {stage.tenants[B].key}"}
    assert httpx.get(theirs, headers=headers, trust_env=False).status_code == 404


# ---- what shares a batch


def test_a_batch_of_many_versions_changes_none_of_them(stage: Stage) -> None:
    """The identity adapter and the markers, alone and then all at once, token by token."""
    models = [
        (tenant, "ttrl@base" if number == 0 else f"ttrl@v{number}")
        for tenant, marked in stage.tenants.items()
        for number in marked.texts
    ]
    alone = [logprobs(stage, tenant, model) for tenant, model in models]
    with ThreadPoolExecutor(2 * len(models)) as pool:
        together = list(pool.map(lambda one: logprobs(stage, *one), models * 4))
    for got, wanted in zip(together, alone * 4, strict=True):
        assert [token for token, _ in got] == [token for token, _ in wanted]
        assert [p for _, p in got] == pytest.approx([p for _, p in wanted], abs=1e-3)


def logprobs(stage: Stage, tenant: str, model: str) -> list[tuple[str, float]]:
    """The tokens of the greedy answer, each with its log-probability."""
    choice = stage.ask(tenant, model=model, logprobs=True).json()["choices"][0]
    return [(token["token"], token["logprob"]) for token in choice["logprobs"]["content"]]
