"""lm_eval: a task over a local file, by local-chat-completions, without a hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from checking import KEY, MODEL, V1, Checks

check = Checks("lm_eval")
TASK = """\
task: ttrl_additions
dataset_path: json
dataset_kwargs:
  data_files: {{test: {questions}}}
test_split: test
output_type: generate_until
doc_to_text: "What is {{{{a}}}}+{{{{b}}}}?"
doc_to_target: "{{{{total}}}}"
generation_kwargs: {{until: ["<|im_end|>"], max_gen_toks: 64, temperature: 0}}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
filter_list:
  - name: last-number
    filter:
      - {{function: regex, regex_pattern: "(-?[0-9]+)", group_select: -1}}
      - {{function: take_first}}
metadata: {{version: 1.0}}
"""
NUM_QUESTIONS = 12


@check("local-chat-completions on additions, two at a time")
def _() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        questions = folder / "additions.jsonl"
        sums = [{"a": a, "b": 3 * a + 1, "total": str(4 * a + 1)} for a in range(NUM_QUESTIONS)]
        questions.write_text("".join(json.dumps(one) + "\n" for one in sums))
        (folder / "additions.yaml").write_text(TASK.format(questions=questions))
        out = folder / "out"
        command = [
            *(sys.executable, "-m", "lm_eval", "run"),
            *("--model", "local-chat-completions", "--tasks", "ttrl_additions"),
            *("--model_args", f"model={MODEL},base_url={V1}/chat/completions,num_concurrent=2"),
            *("--include_path", name, "--apply_chat_template", "--output_path", str(out)),
            "--log_samples",
        ]
        environment = {**os.environ, "OPENAI_API_KEY": KEY, "HF_HOME": str(folder / "hub")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        sys.stderr.write(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr[-2000:]
        [samples] = out.rglob("samples_*.jsonl")
        answered = [json.loads(line) for line in samples.read_text().splitlines()]
        [results] = out.rglob("results_*.json")
        found = json.loads(results.read_text())["results"]["ttrl_additions"]
    assert len(answered) == NUM_QUESTIONS, answered
    assert all(one["resps"][0][0] for one in answered), answered
    score = found["exact_match,last-number"]
    assert 0 <= score <= 1, found
    sys.stderr.write(f"exact_match {score}\n")


check.run()
