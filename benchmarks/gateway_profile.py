"""Where the gateway's processor time goes under saturation, by step.

    python -m benchmarks.gateway_profile [whole|stream] [--seconds 20] [--stacks FILE]

The web process looks at its own stack whenever it has used another four milliseconds of processor
time (`ITIMER_PROF`), so that waiting, for the disk or for a core, is not counted. A sample belongs
to the step of its innermost frame that the table below knows. What the log's thread uses is read
from the kernel. `--stacks` writes the samples for a flame graph.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

from benchmarks import gateway_under_test
from benchmarks.gateway_sides import FOLDER, sides

EVERY_S: Final = 0.004
# The innermost frame that contains one of these words (of "file:function") decides.
STEPS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("send the answer (uvicorn)", ("httptools_impl.py:send", "flow_control")),
    ("event loop, sockets", ("asyncio/runners.py:run",)),
    ("parse HTTP (uvicorn)", ("uvicorn/",)),
    ("engines' polls", ("httpx/", "httpcore/", "pool.py:check", "pool.py:_poll", "pool.py:look")),
    ("key", ("tenants.py:", "refreshing.py:", "auth.py:", "client_side.py:api_key")),
    ("log: entry, hand-over", ("call.py:record", "call.py:_entry", "fingerprint", "recorder.py:")),
    ("log: group commit", ("recorder.py:_commit", "transactions.py:", "db/", "line.py:")),
    ("admission, lease", ("admission.py:", "registry.py:", "recorder.py:reserve", "limits")),
    ("body: read and check", ("client_side.py:read_body", "gateway/parsing.py:", "allowlist.py:")),
    ("engine's request: words", ("call.py:open", "call.py:__init__", "call.py:request_id")),
    ("watch the client", ("client_side.py:",)),
    ("engine hop", ("engine_http.py:", "engine_answer.py:", "upstream.py:", "pool.py:")),
    ("answer: read and rewrite", ("transcript.py:", "rewriting.py:", "rendering.py:", "sse.py:")),
    ("answer: relay", ("relay.py:", "call.py:", "exchange.py:")),
    ("framework (FastAPI, Starlette)", ("fastapi/", "starlette/", "routes.py:")),
)
ORDER: Final = {name: place for place, (name, _) in enumerate(STEPS)}


def step_of(stack: str) -> str:
    """The step that a stack (frames by semicolons, the innermost last) belongs to."""
    for frame in reversed(stack.split(";")):
        found = [(len(word), name) for name, words in STEPS for word in words if word in frame]
        if found:
            return max(found)[1]  # the most exact word
    return "event loop and the rest"


class Sampler:
    """Counts stacks of the main thread."""

    def __init__(self) -> None:
        self.stacks: Counter[str] = Counter()

    def start(self) -> None:
        """Begin."""
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)

    def clear(self, *_: object) -> None:
        """Forget the warm-up."""
        self.stacks.clear()

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        names: list[str] = []
        while frame is not None:
            file = "/".join(frame.f_code.co_filename.split("/")[-3:])
            names.append(f"{file}:{frame.f_code.co_name}")
            frame = frame.f_back
        self.stacks[";".join(reversed(names))] += 1


def serve(out: str) -> None:
    """Be the web process, and write the stacks at the end."""
    sampler = Sampler()
    signal.signal(signal.SIGUSR1, sampler.clear)
    signal.signal(signal.SIGTERM, _exit)
    sampler.start()
    try:
        gateway_under_test.main()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        Path(out).write_text(json.dumps(sampler.stacks), encoding="utf-8")


def _exit(*_: object) -> None:
    """Uvicorn raises the signal again at its end, which would leave nothing to write."""
    sys.exit(0)


def threads_us(pid: int) -> dict[int, int]:
    """Processor time of each thread, in microseconds. Linux only."""
    tick = 1_000_000 // os.sysconf("SC_CLK_TCK")
    found: dict[int, int] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        stat = (task / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        found[int(task.name)] = (int(stat[11]) + int(stat[12])) * tick
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway_profile")
    parser.add_argument("kind", nargs="?", default="whole", choices=("whole", "stream"))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--stacks", type=Path)
    options = parser.parse_args()
    out = FOLDER / "stacks.json"
    with sides("gateway", gateway=("benchmarks.gateway_profile", "serve", str(out))) as ways:
        side = ways["gateway"]
        pid = side.servers[0].pid
        body = side.stream() if options.kind == "stream" else side.whole()
        side.load(body, clients=64, seconds=2.0)
        os.kill(pid, signal.SIGUSR1)
        before = threads_us(pid)
        seen = side.load(body, clients=64, seconds=options.seconds, warm_up_s=0.0)
        after = threads_us(pid)
    own = (after[pid] - before[pid]) / seen.sent
    others = sum(after[t] - before.get(t, 0) for t in after if t != pid) / seen.sent
    stacks: dict[str, int] = json.loads(out.read_text(encoding="utf-8"))
    if options.stacks:
        lines = (f"{stack} {count}\n" for stack, count in stacks.items())
        options.stacks.write_text("".join(lines), encoding="utf-8")
    steps: Counter[str] = Counter()
    for stack, count in stacks.items():
        steps[step_of(stack)] += count
    print(f"{seen.sent} requests, {own:.0f} us on the main thread, {others:.0f} us on others")
    print("| step | us a request | share |\n|---|---|---|")
    for name in sorted(steps, key=lambda name: ORDER.get(name, 99)):
        share = steps[name] / steps.total()
        print(f"| {name} | {share * own:.0f} | {share:.0%} |")
    print(f"| log's thread: SQL and commit | {others:.0f} | |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        target = sys.argv.pop(2)
        sys.argv.pop(1)
        serve(target)
    else:
        main()
