"""A process that speaks the trainer's protocol and does what the chat's first message says."""

from __future__ import annotations

import sys
import time

import msgspec

from adapters import batch


def main() -> None:
    send(batch.Ready("0" * 64, 1, 0.0))
    for line in sys.stdin.buffer:
        request = msgspec.json.decode(line, type=batch.Request)
        what = request.messages[0]["content"] if isinstance(request, batch.Tokenize) else ""
        match what:
            case "die":
                sys.stderr.write("Traceback: out of memory\n")
                sys.exit(3)
            case "hang":
                time.sleep(600)
            case "babble":
                sys.stdout.write("Loading weights: 100%\n")
                sys.stdout.flush()
            case "refuse":
                send(batch.Failed("ValueError", "not like this"))
            case "mistake":
                send(batch.Closed())
            case "long":
                send(batch.Tokenized(list(range(200_000))))
            case _:
                send(batch.Tokenized([1, 2, 3]))


def send(reply: batch.Reply) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
