"""A real `ttrl-server serve` with its engine, worker and trainer, for tests to use and to hurt."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx
from ttrl_client import TTRLClient
from ttrl_client.types import EngineStatus, TenantSettings, View

from server.config import Settings
from tests.e2e.processes import Process, descendants, process

ROOT = Path(__file__).resolve().parents[2]
CHAT = "/v1/chat/completions"
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.2
TAIL_LINES = 60
PR_SET_PDEATHSIG = 1

Role = Literal["web", "worker", "trainer", "vllm", "engine_core"]
COMMANDS: Mapping[Role, str] = {
    "worker": "-m server.cli worker",
    "trainer": "-m adapters.training serve",
    "vllm": "-m vllm.entrypoints",
    "engine_core": "VLLM::EngineCore",
}
"""What their command lines contain, those of the guards aside."""

SETTINGS: Mapping[str, Any] = {
    "model": str(ROOT / "demo" / "model"),
    "lease_s": 4.0,
    "scheduler_tick_s": 0.3,
    "engine_poll_s": 0.5,
    # Two threads that meet at barriers come to a standstill where others want the cores too.
    "engine_threads": 1,
    "trainer_nice": 0,  # traffic never ends here, and would keep it waiting
    "engine_start_timeout_s": START_TIMEOUT_S,
}

T = TypeVar("T")


class LiveServer:
    """The server on a data directory of its own. It may be stopped or killed, and started again on
    the same directory and port.

    It runs under no guard of ours: the test that kills the web process must see how the rest ends
    without one. Should the tests be killed, the kernel ends the server in good order.
    """

    def __init__(self, data_dir: Path, **settings: Any) -> None:
        chosen: dict[str, Any] = {
            **SETTINGS,
            "data_dir": data_dir,
            "port": _free_port(),
            **settings,
        }
        self.settings = Settings(**chosen)
        self.data_dir = data_dir
        self.base_url = f"http://127.0.0.1:{self.settings.port}"
        self.log_path = data_dir / "server.log"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TTRL_")},
            **{f"TTRL_{name.upper()}": str(value) for name, value in chosen.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: TTRLClient | None = None

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it, and return when it takes requests."""
        command = [str(Path(sys.executable).with_name("ttrl-server")), "serve"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        try:
            self.wait_ready(timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None

    def stop(self) -> None:
        """End it in good order; kill whatever does not end. Idempotent."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        running, self._process = self._process, None
        if running is None:
            return
        tree = descendants(running.pid)
        running.terminate()
        with suppress(subprocess.TimeoutExpired):
            running.wait(STOP_TIMEOUT_S)
        for left in [p for p in tree if p.is_alive]:
            left.signal(signal.SIGKILL)
        running.kill()
        running.wait()

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the engine answers with all live versions loaded, and the database too."""
        with httpx.Client(base_url=self.base_url, timeout=5, trust_env=False) as http:
            self.wait_for(lambda: _answers(http), "the server to be ready", timeout_s)

    def wait_for(
        self, look: Callable[[], T | None], what: str, timeout_s: float, poll_s: float = POLL_S
    ) -> T:
        """What `look` returns as soon as it is true.

        Raises:
            AssertionError: the server has ended, or it took too long.
        """
        deadline = time.monotonic() + timeout_s
        while not (found := look()):
            if self._process is None or self._process.poll() is not None:
                raise AssertionError("The server ended.")
            if time.monotonic() > deadline:
                raise AssertionError(f"Waited {timeout_s:.0f} s for {what}.")
            time.sleep(poll_s)
        return found

    # ---- what it is made of

    @property
    def pid(self) -> int:
        """The web process."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def tree(self) -> list[Process]:
        """The web process and all its descendants, guards too."""
        return [process(self.pid), *descendants(self.pid)]

    def processes(self, role: Role) -> list[Process]:
        """Those that play a role now: none or one, while nothing is restarted."""
        if role == "web":
            return [process(self.pid)]
        below = descendants(self.pid)
        return [p for p in below if COMMANDS[role] in p.command and "guard.py" not in p.command]

    def process(self, role: Role) -> Process:
        """The one that plays a role now."""
        (found,) = self.processes(role)
        return found

    def kill(self, role: Role) -> Process:
        """`kill -9` the process that plays a role; it is dead when this returns."""
        victim = self.process(role)
        victim.signal(signal.SIGKILL)
        if role == "web":
            assert self._process is not None
            self._process.wait()
        else:
            self.wait_for(lambda: not victim.is_alive, f"the {role} to die", 10, poll_s=0.01)
        return victim

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The ends of the server's and the engine's log."""
        return "\n".join(
            f"--- {path}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
            for path in (self.log_path, self.data_dir / "logs" / "engine.log")
            if path.exists()
        )

    # ---- its APIs

    @property
    def admin_key(self) -> str:
        """The key that the server made for itself."""
        return (self.data_dir / "admin.key").read_text().strip()

    @property
    def admin(self) -> TTRLClient:
        """The blocking admin client."""
        if self._admin is None:
            self._admin = TTRLClient(self.base_url, admin_key=self.admin_key)
        return self._admin

    @property
    def engine(self) -> EngineStatus:
        """The engine as the server sees it."""
        (engine,) = self.admin.read_status().engines
        return engine

    @property
    def engine_url(self) -> str:
        """Where vLLM itself answers; the same over restarts of the engine."""
        return self.engine.url

    def adapters(self) -> set[str]:
        """The names that vLLM itself lists now, the base model's among them."""
        cards = httpx.get(f"{self.engine_url}/v1/models", timeout=30, trust_env=False).json()
        return {card["id"] for card in cards["data"]}

    def make_tenant(
        self,
        name: str,
        *,
        views: Sequence[View] = (),
        settings: TenantSettings | None = None,
    ) -> tuple[str, str]:
        """A new tenant's name and API key. Use a name that no other test uses."""
        settings = settings or TenantSettings(answer="math", views=list(views))
        return name, self.admin.create_tenant(name, settings=settings).key.secret

    def http(self, key: str) -> httpx.AsyncClient:
        """A client with a tenant's key, to be closed by its user."""
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(
            base_url=self.base_url, headers=headers, timeout=120, trust_env=False, verify=False
        )

    async def ask(self, key: str, question: str, **params: Any) -> httpx.Response:
        """The chat endpoint's answer to a question, read to its end; any status."""
        async with self.http(key) as http:
            return await http.post(CHAT, json=question_body(question, **params))


def question_body(question: str, **params: Any) -> dict[str, Any]:
    """The body of a request for one short answer; `params` are laid over it."""
    messages = [{"role": "user", "content": question}]
    return {"model": "ttrl", "messages": messages, "max_tokens": 64, **params}


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _die_with_parent() -> None:
    """In the child: end in good order even if the tests are killed and cannot end it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
