"""`FakeVLLM`: vLLM 0.32's HTTP surface without a model, for tests of all that talks to it.

    fake = FakeVLLM()                               # every model answers `marker`
    fake.answers["t1-adder--v1"] = r"\\boxed{4}"      # fixed
    fake.answers["t1-adder--v2"] = ["4", "4", "5"]  # by (seed + choice) mod 3; no seed: in turn
    fake.answers["identity"] = echo                 # or any function Ask -> str | ToolCall | Turn
    fake.default_answer = marker                    # "<model>|<question>"
    fake.adapters                                   # {name: path} that are loaded
    fake.requests, fake.received("/v1/completions") # all that came: method, path, headers, body
    fake.script("/v1/completions", Fault(status=500), Fault(drop_after=2))  # the next two
    fake.healthy = False                            # /health answers 503
    fake.restart()                                  # forget all adapters, as a new process would

In-process:       httpx.AsyncClient(transport=httpx.ASGITransport(app=fake), base_url="http://e")
                  (buffers streams; a broken connection is raised as `Dropped`)
On a real socket: async with serve(fake) as url: ...      # in the test's event loop
                  with serve_in_thread(fake) as url: ...  # a loop of its own
                  with serve_process("--token-delay-s", "0.001") as url: ...  # for benchmarks
                  (all in tests.fakes.serving; pass `port=` to come back at the same place)

A `Fault` applies to one request: `hold` is an `asyncio.Event` that is waited for first (the engine
notices a client that leaves meanwhile), `status` answers an error in vLLM's shape, `drop_after=k`
breaks the connection after k streamed events (or in the middle of a plain body), `error_after=k`
sends vLLM's error event and `[DONE]` after k events, `stall_after=k` sends no more than k events
and waits until the client leaves, `garbage` answers 200 with these bytes.

`fake.in_flight`, `fake.peak_in_flight` and `fake.num_aborted` (clients that left) count
generations; `await fake.arrived(n)` waits until n generations came in, `await fake.called(path, n)`
until a path was requested n times, `await fake.idle()` until no generation is running.
`token_delay_s` paces them, `chunk_tokens` is how many tokens go into one event. Tokens are Unicode
code points (`vllm_wire.encode`), an answer ends with `EOS`, log-probabilities are made up but
stable. Adapters' directories must hold an `adapter_config.json`, unless `check_files=False`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.fakes import vllm_wire as wire
from tests.fakes.vllm_call import (
    Call,
    ClientLeft,
    Dropped,
    Fault,
    Message,
    Receive,
    Received,
    Send,
    read,
)
from tests.fakes.vllm_plan import Ask, Serving, missing, plan, stream_events
from tests.fakes.vllm_wire import EOS, Problem, ToolCall, Turn

__all__ = [
    "EOS",
    "Ask",
    "Dropped",
    "FakeVLLM",
    "Fault",
    "Received",
    "ToolCall",
    "Turn",
    "echo",
    "marker",
]

CHAT = "/v1/chat/completions"
GENERATION = (CHAT, "/v1/completions")

Answer = str | ToolCall | Turn | Sequence[str] | Callable[[Ask], str | ToolCall | Turn]


def echo(ask: Ask) -> str:
    """The question again."""
    return ask.question


def marker(ask: Ask) -> str:
    """Says which model answered what: `<model>|<question>`."""
    return f"{ask.model}|{ask.question}"


@dataclass
class FakeVLLM:
    """An ASGI application; see the module's docstring."""

    base: str = "base"
    max_model_len: int = 4096
    chunk_tokens: int = 1
    token_delay_s: float = 0.0
    check_files: bool = True  # False: any path can be loaded
    healthy: bool = True
    metrics: str = ""  # what /metrics answers
    answers: dict[str, Answer] = field(default_factory=dict[str, Answer])
    default_answer: Answer = marker
    adapters: dict[str, str] = field(default_factory=dict[str, str])
    requests: list[Received] = field(default_factory=list[Received])
    in_flight: int = 0
    peak_in_flight: int = 0
    num_generations: int = 0
    num_aborted: int = 0
    _faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    _turns: dict[str, itertools.count[int]] = field(
        default_factory=lambda: defaultdict(itertools.count)
    )
    _changed: set[asyncio.Event] = field(default_factory=set[asyncio.Event])

    def script(self, path: str, *faults: Fault) -> None:
        """Let the next requests to `path` meet these faults, one each."""
        self._faults[path].extend(faults)

    def restart(self) -> None:
        """Forget every adapter, as a new vLLM process would."""
        self.adapters.clear()

    def received(self, path: str) -> list[Received]:
        """The requests to one path."""
        return [r for r in self.requests if r.path == path]

    async def arrived(self, number: int) -> None:
        """Wait until so many generations were received since the start."""
        await self._until(lambda: self.num_generations >= number)

    async def called(self, path: str, number: int) -> None:
        """Wait until a path was requested so many times since the start."""
        await self._until(lambda: len(self.received(path)) >= number)

    async def idle(self) -> None:
        """Wait until no generation is in flight."""
        await self._until(lambda: self.in_flight == 0)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            changed = asyncio.Event()
            self._changed.add(changed)
            await changed.wait()
            self._changed.discard(changed)

    def _notify(self) -> None:
        for changed in list(self._changed):
            changed.set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] != "http":
            raise Dropped(scope["type"])
        call = await read(scope, receive, send)
        self.requests.append(call.received)
        self._notify()
        try:
            if call.received.path in GENERATION:
                await self._counted(call)
            else:
                await self._answer(call)
        except ClientLeft:
            pass
        finally:
            call.left.cancel()

    async def _counted(self, call: Call) -> None:
        self.num_generations += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self._notify()
        try:
            await self._answer(call)
        except ClientLeft:
            self.num_aborted += 1
        finally:
            self.in_flight -= 1
            self._notify()

    async def _answer(self, call: Call) -> None:
        faults = self._faults[call.received.path]
        fault = faults.popleft() if faults else Fault()
        if fault.hold is not None:
            await call.wait(fault.hold.wait())
        if fault.garbage is not None:
            await call.answer(200, fault.garbage)
        elif fault.status is not None:
            kind = HTTPStatus(fault.status).phrase.replace(" ", "") + "Error"
            await call.problem(Problem(fault.status, fault.message, kind))
        else:
            await self._route(call, fault)

    async def _tell(self, call: Call, path: str) -> None:
        if path == "/health":
            await call.answer(200 if self.healthy else 503, b"")
        elif path == "/v1/models":
            await call.json(200, {"object": "list", "data": self._cards()})
        elif path == "/metrics":
            await call.answer(200, self.metrics.encode())
        elif path == "/version":
            await call.json(200, {"version": "0.32.0"})
        else:
            await call.json(404, {"detail": "Not Found"})

    async def _route(self, call: Call, fault: Fault) -> None:
        received = call.received
        if received.method == "GET":
            await self._tell(call, received.path)
            return
        if not isinstance(received.body, dict):
            message = "1 validation error:\n  {'type': 'json_invalid', 'loc': 'body'}"
            await call.problem(Problem(400, message, "Bad Request", "body.0"))
            return
        match received.path:
            case "/v1/load_lora_adapter":
                await call.text_or_problem(self._load(received.body))
            case "/v1/unload_lora_adapter":
                await call.text_or_problem(self._unload(received.body))
            case "/tokenize":
                await self._tokenize(call, received.body)
            case path if path in GENERATION:
                await self._generate(call, received.body, fault)
            case _:
                await call.json(404, {"detail": "Not Found"})

    def _cards(self) -> list[dict[str, Any]]:
        cards = [_card(self.base, "/models/base", None, self.max_model_len)]
        return cards + [_card(name, path, self.base, None) for name, path in self.adapters.items()]

    def _load(self, body: dict[str, Any]) -> str | Problem:
        for field_name in ("lora_name", "lora_path"):
            if field_name not in body:
                return missing(field_name)
        name, path = body["lora_name"], body["lora_path"]
        if not name or not path:
            text = "Both 'lora_name' and 'lora_path' must be provided."
            return Problem(400, text, "InvalidUserInput")
        if name == self.base:
            text = f"The lora adapter '{name}' conflicts with a served base model."
            return Problem(400, text, "InvalidUserInput")
        if name in self.adapters and not body.get("load_inplace"):
            text = f"The lora adapter '{name}' has already been loaded. If you want to load the"
            text += " adapter in place, set 'load_inplace' to True."
            return Problem(400, text, "InvalidUserInput")
        if self.check_files and not (Path(path) / "adapter_config.json").is_file():
            text = f"Loading lora {name} failed: No adapter found for <path>"
            return Problem(404, text, "NotFoundError")
        self.adapters[name] = path
        return f"Success: LoRA adapter '{name}' added successfully."

    def _unload(self, body: dict[str, Any]) -> str | Problem:
        if "lora_name" not in body:
            return missing("lora_name")
        name = body["lora_name"]
        if name not in self.adapters:
            text = f"The lora adapter '{name}' cannot be found."
            return Problem(404, text, "NotFoundError")
        del self.adapters[name]
        return f"Success: LoRA adapter '{name}' removed successfully."

    def _serving(self) -> Serving:
        return Serving(self.base, self.adapters, self.max_model_len, self.answer)

    async def _tokenize(self, call: Call, body: dict[str, Any]) -> None:
        unknown = self._serving().unknown(body.get("model"))
        if unknown is not None:
            await call.problem(unknown)
            return
        text = body.get("prompt", "")
        if "messages" in body:
            text = wire.render_chat(body["messages"])
        ids = wire.encode(text)
        answer = {"count": len(ids), "max_model_len": self.max_model_len, "tokens": ids}
        await call.json(200, answer | {"token_strs": None})

    async def _generate(self, call: Call, body: dict[str, Any], fault: Fault) -> None:
        is_chat = call.received.path == CHAT
        request_id = call.received.headers.get("x-request-id", f"fake{self.num_generations}")
        planned = plan(self._serving(), body, is_chat, request_id)
        if isinstance(planned, Problem):
            await call.problem(planned)
        elif body.get("stream"):
            events = stream_events(planned, body, is_chat, self.chunk_tokens)
            await call.stream(events, fault, self.token_delay_s)
        else:
            await call.wait(asyncio.sleep(self.token_delay_s * planned.num_tokens))
            render = wire.chat_response if is_chat else wire.completion_response
            data = wire.dumps(render(planned.head, planned.choices))
            await call.answer(200, data, is_cut=fault.drop_after is not None)

    def answer(self, ask: Ask) -> str | ToolCall | Turn:
        """What a model answers to one choice."""
        answer = self.answers.get(ask.model, self.default_answer)
        if isinstance(answer, str | ToolCall | Turn):
            return answer
        if isinstance(answer, Sequence):
            turn = next(self._turns[ask.model]) if ask.seed is None else ask.seed + ask.index
            return answer[turn % len(answer)]
        return answer(ask)


def _card(name: str, root: str, parent: str | None, length: int | None) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": wire.CREATED,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": length,
        "permission": [],
    }
