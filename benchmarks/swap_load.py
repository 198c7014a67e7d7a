"""Tenants whose versions mark their answers, users who never stop streaming, and what they met."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.e2e.live import CHAT, LiveServer, question_body
from tests.e2e.markers import GREEDY, QUESTION, answer, markers, publish

TIMEOUT_S = 120.0
DATA, DONE = b"data: ", b"[DONE]"


@dataclass(frozen=True, slots=True)
class Marked:
    """A tenant, and what each of its versions answers; version 0 as the base model."""

    name: str
    key: str
    texts: Mapping[str, str]  # by public name


@dataclass(slots=True)
class Stream:
    """One streamed answer as its user met it; times are monotonic seconds."""

    tenant: str
    started: float
    ended: float = 0.0
    label: str | None = None  # the version that the header names
    fingerprints: set[str] = field(default_factory=set[str])
    times: list[float] = field(default_factory=list[float])  # when tokens came
    text: str = ""
    is_whole: bool = False
    fault: str | None = None

    @property
    def wait_s(self) -> float:
        """Until the first token."""
        return self.times[0] - self.started

    def gaps(self) -> Iterator[tuple[float, float]]:
        """When each token after the first came, and how long after the one before."""
        for before, at in zip(self.times, self.times[1:], strict=False):
            yield at, at - before


@dataclass(frozen=True, slots=True)
class Move:
    """A tenant's pointer came to stand on a version between two times."""

    tenant: str
    label: str
    begun: float
    ended: float


def mark_tenants(
    live: LiveServer, folder: Path, names: Sequence[str], *, num_versions: int
) -> list[Marked]:
    """New tenants with published versions, each with an answer that no other one gives."""
    marks = markers(live, folder, seed=100)
    base = answer(live, "identity").text
    tenants: list[Marked] = []
    for name in names:
        _, key = live.make_tenant(name)
        texts = {f"{name}--v0": base}
        for number, mark in enumerate(islice(marks, num_versions), 1):
            publish(live, name, number, mark.source)
            texts[f"{name}--v{number}"] = mark.text
        tenants.append(Marked(name, key, texts))
    return tenants


class Crowd:
    """Users that ask the marked question again and again, streamed."""

    def __init__(self, base_url: str) -> None:
        self.streams: list[Stream] = []
        self._url = base_url + CHAT
        self._is_over = asyncio.Event()

    @asynccontextmanager
    async def asking(self, users: Iterable[Marked]) -> AsyncGenerator[None]:
        """One user for each element, while the block runs; at its end they finish."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector) as http,
            asyncio.TaskGroup() as going,
        ):
            for tenant in users:
                going.create_task(self._ask_on(http, tenant))
            try:
                yield
            finally:
                self._is_over.set()

    async def _ask_on(self, http: aiohttp.ClientSession, tenant: Marked) -> None:
        while not self._is_over.is_set():
            stream = Stream(tenant.name, time.monotonic())
            try:
                await self._ask(http, tenant.key, stream)
            except (aiohttp.ClientError, TimeoutError) as error:
                stream.fault = repr(error)
            stream.ended = time.monotonic()
            self.streams.append(stream)

    async def _ask(self, http: aiohttp.ClientSession, key: str, stream: Stream) -> None:
        body = question_body(QUESTION, stream=True, **GREEDY)
        headers = {"Authorization": f"Bearer {key}"}
        async with http.post(self._url, json=body, headers=headers) as response:
            if response.status != 200:
                stream.fault = f"{response.status}: {(await response.read())[:200]!r}"
                return
            stream.label = response.headers.get("X-TTRL-Adapter")
            async for line in response.content:
                if line.startswith(DATA):
                    _take(stream, line.removeprefix(DATA).strip())


def _take(stream: Stream, data: bytes) -> None:
    if data == DONE:
        stream.is_whole = stream.fault is None
        return
    event: dict[str, Any] = msgspec.json.decode(data)
    if "error" in event:
        stream.fault = str(event["error"])
        return
    stream.fingerprints.add(event["system_fingerprint"])
    for choice in event["choices"]:
        if content := choice["delta"].get("content"):
            stream.times.append(time.monotonic())
            stream.text += content


def failed(streams: Iterable[Stream]) -> list[str]:
    """What went wrong with requests."""
    return [stream.fault or "cut off" for stream in streams if not stream.is_whole]


def wrong(streams: Iterable[Stream], tenants: Iterable[Marked], moves: Sequence[Move]) -> list[str]:
    """Whole answers whose tokens are not of the version that they name, or whose version was not
    live while they were asked for.
    """
    texts = {label: text for tenant in tenants for label, text in tenant.texts.items()}
    found: list[str] = []
    for stream in streams:
        if not stream.is_whole:
            continue
        if stream.text != texts.get(stream.label or "") or stream.fingerprints != {stream.label}:
            found.append(f"{stream.label}: {stream.text!r} {stream.fingerprints}")
        elif not _was_live(stream, moves):
            found.append(f"{stream.label} was not live")
    return found


def _was_live(stream: Stream, moves: Sequence[Move]) -> bool:
    own = [move for move in moves if move.tenant == stream.tenant]
    ends = [move.ended for move in own[1:]] + [float("inf")]
    return any(
        move.begun <= stream.ended and stream.started <= end
        for move, end in zip(own, ends, strict=True)
        if move.label == stream.label
    )


async def leaked(live: LiveServer, tenants: Sequence[Marked], *, patience_s: float) -> set[str]:
    """Adapters that the engine still lists, `patience_s` after the last request, though nobody's
    live version is among them.
    """
    extra: set[str] = set()
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        extra = await asyncio.to_thread(_extra, live, tenants)
        if not extra:
            break
        await asyncio.sleep(0.5)
    return extra


def _extra(live: LiveServer, tenants: Sequence[Marked]) -> set[str]:
    wanted = {"base", "identity"}
    for tenant in tenants:
        state = live.admin.read_tenant(tenant.name)
        wanted.add(f"t{state.id}-{tenant.name}--v{state.live_version}")
    return live.adapters() - wanted
