"""`python -m adapters.training serve ...` and `... identity ...`; see `--help`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

DTYPES = ("auto", "float32", "bfloat16")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m adapters.training")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="train adapters; speaks adapters.batch on stdin/out")
    serve.add_argument("--model", required=True, help="path or hub id of the base model")
    serve.add_argument("--threads", type=int, default=1, help="CPU cores")
    serve.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1, ...")
    serve.add_argument("--dtype", choices=DTYPES, default="auto", help="what the engine serves")
    serve.add_argument(
        "--gradient-checkpointing", action="store_true", help="less memory, a third more time"
    )
    identity = commands.add_parser("identity", help="write an adapter that changes nothing")
    identity.add_argument("--model", required=True, help="path or hub id of the base model")
    identity.add_argument("--rank", type=int, required=True)
    identity.add_argument("--alpha", type=int, required=True)
    identity.add_argument("--out", type=Path, required=True, help="the adapter's folder")
    return parser.parse_args(arguments)


def run_serve(arguments: argparse.Namespace) -> int:
    """Serve until standard input ends."""
    from adapters.training.channel import claim_stdout, die_with_parent

    die_with_parent()
    replies = claim_stdout()

    # Only now: torch and transformers may print, and take seconds.
    import torch

    from adapters.training.base_model import BaseModel, load_base, pick_device
    from adapters.training.process import serve

    def load() -> BaseModel:
        # Not beside a GPU, on which autograd has threads that a forked helper would not have.
        forks = pick_device(arguments.device).type == "cpu" and not torch.cuda.is_available()
        torch.set_num_threads(1 if forks else arguments.threads)
        return load_base(
            arguments.model,
            device=arguments.device,
            dtype=arguments.dtype,
            gradient_checkpointing=arguments.gradient_checkpointing,
            workers=arguments.threads if forks else 1,
        )

    return serve(load, sys.stdin.buffer, replies)


def run_identity(arguments: argparse.Namespace) -> int:
    """Write the adapter, or say why not."""
    from adapters.training.identity import ensure_identity

    try:
        ensure_identity(
            arguments.model, rank=arguments.rank, alpha=arguments.alpha, folder=arguments.out
        )
    except (OSError, ValueError) as error:
        logging.getLogger(__name__).error("no identity adapter: %s", error)
        return 1
    return 0


def main() -> int:
    """Returns the exit status."""
    arguments = parse()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return run_serve(arguments) if arguments.command == "serve" else run_identity(arguments)


if __name__ == "__main__":
    sys.exit(main())
