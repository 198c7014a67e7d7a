"""The load of a benchmark, from a process of its own that costs as little as it can: requests that
were made once, and answers of which only the end is looked for.

`python -m benchmarks.load PLAN` does what the plan (JSON, see `Plan`) says and prints a `Seen`.

In a closed loop each client asks again when it was answered: that finds the most a server can do.
In an open loop requests come by the clock (Poisson), whether or not the server is ready for them,
and a time is counted from when the request was due, so that a slow answer also slows who is behind.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import deque
from dataclasses import asdict, dataclass
from time import perf_counter, process_time
from typing import Any, Final, cast
from urllib.parse import urlsplit

import uvloop

HEAD_END: Final = b"\r\n\r\n"
CHUNKS_END: Final = b"\r\n0\r\n\r\n"
QUANTILES: Final = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
PATIENCE_S: Final = 30.0  # for the last answers
TIMER_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send where. With a `rate` (requests a second) the loop is open; `clients` is how many
    connections there are, in an open loop how many are opened ahead. What starts in the first
    `warm_up_s` seconds is not counted.
    """

    url: str
    key: str
    bodies: list[dict[str, Any]]  # sent by turns
    clients: int = 1
    rate: float | None = None
    seconds: float = 5.0
    warm_up_s: float = 1.0
    seed: int = 0

    def requests(self) -> list[bytes]:
        """The bodies as HTTP."""
        host = urlsplit(self.url).netloc
        made: list[bytes] = []
        for fields in self.bodies:
            body = json.dumps(fields).encode()
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n"
                f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            made.append(head.encode() + body)
        return made


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a plan. Times in milliseconds; `busy` is this process's share of a core.

    `server_us` is processor time of the server's processes for each request, which whoever runs
    the load may add: on a busy machine it is the steadier figure.
    """

    sent: int
    answered: int  # well, and started after the warm-up
    failed: int
    per_s: float
    busy: float
    quantiles: tuple[float, ...]
    whole_ms: list[float]  # to the last byte, at each quantile
    first_ms: list[float]  # to the first byte of the body
    server_us: float = 0.0


@dataclass(slots=True)
class Times:
    """One answer's times, in seconds of the performance counter."""

    due: float
    first: float = 0.0
    last: float = 0.0
    is_good: bool = False


class Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._end: int | None = None  # where the answer ends, if its length is known
        self._is_chunked = False
        self._times: Times | None = None
        self._answered: asyncio.Future[Times] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's only looks like one

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's."""
        self._transport = None
        self._settle(is_good=False)

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None

    def ask(self, request: bytes, due: float) -> asyncio.Future[Times]:
        """Send a request; the future is done when the answer has come, or will not."""
        self._received.clear()
        self._end, self._is_chunked = None, False
        self._times = Times(due)
        self._answered = answered = asyncio.get_running_loop().create_future()
        if self._transport is None:
            self._settle(is_good=False)
        else:
            self._transport.write(request)
        return answered

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Asyncio's."""
        received, times = self._received, self._times
        received += data
        if times is None:
            return
        if self._end is None and not self._is_chunked:
            self._read_head()
        if not times.first and len(received) > received.find(HEAD_END) + len(HEAD_END):
            times.first = perf_counter()
        if self._is_chunked:
            if received.endswith(CHUNKS_END):
                # A stream that ends without `[DONE]` has gone wrong in the middle.
                self._settle(is_good=received.find(b"[DONE]", -64) >= 0)
        elif self._end is not None and len(received) >= self._end:
            self._settle(is_good=True)

    def _read_head(self) -> None:
        end = self._received.find(HEAD_END)
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        _, found, length = head.partition(b"\r\ncontent-length:")
        self._is_chunked = not found
        self._end = end + len(HEAD_END) + int(length.split(b"\r\n", 1)[0]) if found else None

    def _settle(self, *, is_good: bool) -> None:
        times, answered = self._times, self._answered
        self._times = self._answered = None
        if times is None or answered is None or answered.done():
            return
        times.last = perf_counter()
        times.is_good = is_good and self._received.startswith(b"HTTP/1.1 200")
        answered.set_result(times)


async def _connect(plan: Plan) -> Connection:
    host, _, port = urlsplit(plan.url).netloc.partition(":")
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, host, int(port))
    return connection


async def closed_loop(plan: Plan) -> list[Times]:
    """Every client asks again as soon as it was answered."""
    requests = plan.requests()
    until = perf_counter() + plan.warm_up_s + plan.seconds
    seen: list[Times] = []

    async def client(number: int) -> None:
        connection = await _connect(plan)
        turn = number
        while perf_counter() < until:
            if not connection.is_open:
                connection = await _connect(plan)
            request = requests[turn % len(requests)]
            seen.append(await connection.ask(request, perf_counter()))
            turn += 1
        connection.close()

    await asyncio.gather(*(client(number) for number in range(plan.clients)))
    return seen


async def open_loop(plan: Plan, rate: float) -> list[Times]:
    """Requests come by the clock, on whichever connection is free, else on a new one."""
    requests, chance = plan.requests(), random.Random(plan.seed)
    idle = deque([await _connect(plan) for _ in range(plan.clients)])
    asking: list[asyncio.Task[Times]] = []

    async def ask(turn: int, due: float) -> Times:
        connection = idle.popleft() if idle else None
        if connection is None or not connection.is_open:
            connection = await _connect(plan)
        times = await connection.ask(requests[turn % len(requests)], due)
        idle.append(connection)
        return times

    due = perf_counter()
    until = due + plan.warm_up_s + plan.seconds
    while due < until:
        due += chance.expovariate(rate)
        await asyncio.sleep(due - perf_counter())
        now = perf_counter()
        asked_at = now if now - due < TIMER_S else due  # a timer's grain is nobody's fault
        asking.append(asyncio.create_task(ask(len(asking), asked_at)))
    async with asyncio.timeout(PATIENCE_S):
        seen = await asyncio.gather(*asking)
    for connection in idle:
        connection.close()
    return seen


async def carry_out(plan: Plan) -> Seen:
    """Do what the plan says.

    Raises:
        OSError: the server cannot be reached.
        TimeoutError: some answers never came.
    """
    started, cpu = perf_counter(), process_time()
    times = await (closed_loop(plan) if plan.rate is None else open_loop(plan, plan.rate))
    busy = (process_time() - cpu) / (perf_counter() - started)
    counted = started + plan.warm_up_s
    good = [one for one in times if one.is_good and one.due >= counted]
    # By the last bytes in the window, not the starts: what a slow server still owes is not done.
    in_window = sum(counted <= one.last < counted + plan.seconds for one in times if one.is_good)
    return Seen(
        sent=len(times),
        answered=len(good),
        failed=sum(not one.is_good for one in times),
        per_s=in_window / plan.seconds,
        busy=busy,
        quantiles=QUANTILES,
        whole_ms=_quantiles([one.last - one.due for one in good]),
        first_ms=_quantiles([one.first - one.due for one in good]),
    )


def _quantiles(seconds: list[float]) -> list[float]:
    ordered = sorted(seconds)
    return [round(ordered[int(q * (len(ordered) - 1))] * 1e3, 4) for q in QUANTILES if ordered]


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(carry_out(Plan(**json.loads(sys.argv[1])))))))
