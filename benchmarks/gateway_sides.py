"""The servers of the gateway's benchmark: the stub engine, and what stands in front of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from http.client import HTTPConnection
from socket import SO_REUSEPORT, SOL_SOCKET, socket
from typing import Any
from urllib.parse import urlsplit

from benchmarks.gateway_under_test import API_KEY
from benchmarks.load import Plan, Seen
from benchmarks.result import ROOT
from benchmarks.serving import Server, end, running
from benchmarks.vllm_engine import IDENTITY

FOLDER = ROOT / "var" / "bench" / "gateway"
GATEWAY = ("benchmarks.gateway_under_test",)
LITELLM = ROOT / "var" / "envs" / "litellm" / "bin" / "litellm"
QUESTION = "What is 1234 + 4321? Work it out and put the answer in \\boxed{}."
START_S = 300.0


@dataclass(frozen=True, slots=True)
class Side:
    """A way to the engine. `fields` is what its requests have beside the question."""

    name: str
    servers: tuple[Server, ...]
    model: str
    key: str = "none"
    fields: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.servers[0].url

    @property
    def rss_mib(self) -> float:
        """What its processes hold in memory."""
        return sum(server.rss_mib for server in self.servers)

    @property
    def cpu_s(self) -> float:
        """The processor time that its processes have used."""
        return sum(server.cpu_s for server in self.servers)

    def whole(self) -> dict[str, Any]:
        """A request whose answer comes in one piece."""
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": 32,
            "temperature": 0.0,
            **self.fields,
        }

    def stream(self, *, pause_ms: int = 0) -> dict[str, Any]:
        """A request for a stream; with a pause its events come one by one, else all at once."""
        body = self.whole() | {"stream": True, "stream_options": {"include_usage": True}}
        return body | {"seed": pause_ms} if pause_ms else body

    def load(self, *bodies: dict[str, Any], **how: Any) -> Seen:
        """Load it from a process of its own; see `Plan` for how."""
        plan = Plan(url=self.url, key=self.key, bodies=list(bodies), **how)
        command = [sys.executable, "-m", "benchmarks.load", json.dumps(asdict(plan))]
        before = self.cpu_s
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        seen = Seen(**json.loads(done.stdout))
        return replace(seen, server_us=round((self.cpu_s - before) / max(1, seen.sent) * 1e6, 1))


@contextmanager
def sides(*names: str, gateway: Sequence[str] = GATEWAY) -> Generator[dict[str, Side]]:
    """The named ways to one stub engine, all started, in the given order.

    `direct`, `relay`, `relay_journal` (each answer synced to a file) and `litellm`; `gateway` and
    `gateway_2` with one and two web processes, and both with `_unlogged`, which asks the same
    processes not to store. `gateway` is the module that is one, and its first arguments.
    """
    with ExitStack() as stack:
        engine = stack.enter_context(running("benchmarks.stub_engine"))
        _load_identity(engine.url)
        webs: dict[int, tuple[Server, ...]] = {}

        def made(name: str) -> Side:
            if name == "direct":
                return Side(name, (engine,), IDENTITY)
            if name.startswith("relay"):
                journal = [stack.enter_context(_journal())] if name == "relay_journal" else []
                relay = running("benchmarks.peers.relay", engine.url, *journal)
                return Side(name, (stack.enter_context(relay),), IDENTITY)
            if name == "litellm":
                return Side(name, (stack.enter_context(_litellm(engine.url)),), "ttrl", LITELLM_KEY)
            number = 2 if "_2" in name else 1
            if number not in webs:
                webs[number] = stack.enter_context(_gateway(gateway, engine.url, number))
            fields = {"store": False} if name.endswith("_unlogged") else {}
            return Side(name, webs[number], "ttrl", API_KEY, fields)

        yield {name: made(name) for name in names}


@contextmanager
def _journal() -> Generator[str]:
    """A file's name, on the disk where the gateways have their databases."""
    path = FOLDER / f"journal-{time.time_ns()}"
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _gateway(program: Sequence[str], engine_url: str, number: int) -> Generator[tuple[Server, ...]]:
    folder = FOLDER / f"data-{time.time_ns()}"
    with ExitStack() as stack, socket() as place:
        place.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        place.bind(("127.0.0.1", 0))  # it does not listen: only keeps the port for the processes
        port = str(place.getsockname()[1])
        arguments = (str(folder), engine_url, "/identity", port)
        servers: list[Server] = []
        for _ in range(number):
            server = stack.enter_context(running(*program, *arguments))
            _wait(server.url, "/readyz")
            servers.append(server)
        try:
            yield tuple(servers)
        finally:
            stack.close()
            subprocess.run(["rm", "-rf", str(folder)], check=True)


LITELLM_KEY = "sk-" + "b3c5d7f9" * 6  # it refuses short ones


@contextmanager
def _litellm(engine_url: str) -> Generator[Server]:
    """The proxy as its manual has it: one worker, a master key, no database."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    config = FOLDER / "litellm.yaml"
    engine = {"model": f"openai/{IDENTITY}", "api_base": f"{engine_url}/v1", "api_key": "none"}
    settings = {
        "model_list": [{"model_name": "ttrl", "litellm_params": engine}],
        "general_settings": {"master_key": LITELLM_KEY},
    }
    config.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    with socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    command = [str(LITELLM), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--num_workers", "1", "--telemetry", "False"]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with (
        (FOLDER / "litellm.log").open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command, stdout=log, stderr=log, text=True, env=environment, cwd=FOLDER
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, "/health/liveliness", process)
            yield Server(url, process.pid)
        finally:
            end(process)


def _wait(url: str, path: str, process: subprocess.Popen[str] | None = None) -> None:
    """Until the server is ready.

    Raises:
        RuntimeError: it has ended, or takes too long.
    """
    until = time.monotonic() + START_S
    while time.monotonic() < until and (process is None or process.poll() is None):
        try:
            if _request(url, "GET", path) == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{url} is not ready")


def _load_identity(engine_url: str) -> None:
    body = {"lora_name": IDENTITY, "lora_path": "/identity"}
    _request(engine_url, "POST", "/v1/load_lora_adapter", json.dumps(body))


def _request(url: str, method: str, path: str, body: str | None = None) -> int:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path, body)
        return connection.getresponse().status
    finally:
        connection.close()
