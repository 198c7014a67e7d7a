"""Users of the endpoint who never stop asking, and who write down all that they meet."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from demo.questions import additions
from tests.e2e.live import CHAT, question_body

PAUSE_S = 0.25  # leaves most of a core to learning
TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one request. `started` is in seconds of the monotonic clock."""

    started: float
    is_streamed: bool
    status: int | None = None  # None: there was no response
    adapter: str | None = None  # the header
    retry_after: str | None = None
    id: str | None = None
    text: str = ""
    fingerprints: frozenset[str] = frozenset()  # system_fingerprint of the body or of each event
    is_whole: bool = False  # status 200, and all of it arrived
    error: dict[str, Any] | None = None  # OpenAI's error object, from the body or an event
    broken: str | None = None  # what happened to the connection

    @property
    def is_told_away(self) -> bool:
        """Whether it says in OpenAI's shape that the engine is away: as a 503 with Retry-After, or
        at the end of a stream that had begun.
        """
        if self.error is None or self.error["type"] != "server_error":
            return False
        if self.status == 503:
            return (self.retry_after or "").isdecimal()
        return self.is_streamed and self.status == 200 and bool(self.id)


class User:
    """One tenant's user, on a connection of its own."""

    def __init__(self, base_url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(
            base_url=base_url, headers=headers, timeout=TIMEOUT_S, trust_env=False, verify=False
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def ask(self, question: str, *, stream: bool = False, **params: Any) -> Reply:
        """Ask once, without retries; nothing is raised for what the server does."""
        reply = Reading(stream)
        try:
            body = question_body(question, stream=stream, **params)
            with self._http.stream("POST", CHAT, json=body) as response:
                reply.begin(response)
                if stream and response.status_code == 200:
                    for event in events(response):
                        reply.take(event)
                else:
                    response.read()
                    reply.finish(response.json())
        except httpx.TransportError as error:
            reply.broken = repr(error)
        return reply.made()

    @contextmanager
    def streaming(self, question: str, **params: Any) -> Generator[tuple[Reading, Iterator[str]]]:
        """A stream that was begun, and the rest of its events for the body to read."""
        reply = Reading(is_streamed=True)
        body = question_body(question, stream=True, **params)
        with self._http.stream("POST", CHAT, json=body) as response:
            assert response.status_code == 200
            reply.begin(response)
            rest = events(response)
            reply.take(next(rest))
            yield reply, rest


@dataclass(slots=True)
class Reading:
    """A reply while it arrives."""

    is_streamed: bool
    started: float = field(default_factory=time.monotonic)
    broken: str | None = None
    _response: httpx.Response | None = None
    _id: str | None = None
    _texts: list[str] = field(default_factory=list[str])
    _fingerprints: set[str] = field(default_factory=set[str])
    _is_whole: bool = False
    _error: dict[str, Any] | None = None

    def begin(self, response: httpx.Response) -> None:
        """The head is there."""
        self._response = response

    def take(self, data: str) -> None:
        """One event's data."""
        assert not self._is_whole, f"after [DONE]: {data}"
        assert self._error is None, f"after an error: {data}"
        if data == "[DONE]":
            self._is_whole = True
        else:
            self._note(json.loads(data), "delta")

    def finish(self, body: dict[str, Any]) -> None:
        """The body of a reply in one piece, or of an error."""
        self._note(body, "message")
        self._is_whole = self._error is None

    def _note(self, data: dict[str, Any], part: str) -> None:
        if "error" in data:
            self._error = data["error"]
            return
        self._id = data["id"]
        self._fingerprints.add(data["system_fingerprint"])
        self._texts += [choice[part].get("content") or "" for choice in data["choices"]]

    def made(self) -> Reply:
        """What came of it."""
        head = self._response
        return Reply(
            started=self.started,
            is_streamed=self.is_streamed,
            status=head and head.status_code,
            adapter=head and head.headers.get("x-ttrl-adapter"),
            retry_after=head and head.headers.get("retry-after"),
            id=self._id,
            text="".join(self._texts),
            fingerprints=frozenset(self._fingerprints),
            is_whole=self._is_whole,
            error=self._error,
            broken=self.broken,
        )


def events(response: httpx.Response) -> Iterator[str]:
    """The data of a stream's events."""
    for line in response.iter_lines():
        if line:
            assert line.startswith("data: "), line
            yield line.removeprefix("data: ")


class Traffic:
    """Users that ask additions in turn, every second one streamed, until they are stopped."""

    def __init__(self, base_url: str, key: str, questions: Sequence[str]) -> None:
        self.replies: list[Reply] = []
        self._base_url = base_url
        self._key = key
        self._questions = questions
        self._stopping = threading.Event()

    def served_since(self, moment: float) -> bool:
        """Whether a request that was sent after `moment` was answered in full."""
        return any(reply.is_whole and reply.started > moment for reply in self.replies)

    @contextmanager
    def going(self, num_users: int) -> Generator[Traffic]:
        """Ask while the body runs; at its end what is in flight is waited for."""
        with ThreadPoolExecutor(num_users) as pool:
            asking = [pool.submit(self._ask, number, num_users) for number in range(num_users)]
            try:
                yield self
            finally:
                self._stopping.set()
            for user in asking:
                user.result()

    def _ask(self, first: int, step: int) -> None:
        user = User(self._base_url, self._key)
        at = first
        while not self._stopping.wait(PAUSE_S):
            question = self._questions[at % len(self._questions)]
            self.replies.append(user.ask(question, stream=at // step % 2 == 1))
            at += step
        user.close()


@contextmanager
def traffic(base_url: str, key: str, *, seed: int, num_users: int = 2) -> Generator[Traffic]:
    """Traffic of a tenant for the length of the block."""
    questions = [question.text for question in additions(seed, 400)]
    with Traffic(base_url, key, questions).going(num_users) as asked:
        yield asked


def ask_each(base_url: str, key: str, questions: Iterable[str], *, at_once: int = 8) -> list[Reply]:
    """Ask every question once; the replies in order."""
    user = User(base_url, key)
    with ThreadPoolExecutor(at_once) as pool:
        replies = list(pool.map(user.ask, questions))
    user.close()
    return replies
