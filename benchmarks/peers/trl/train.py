"""TRL's GRPOTrainer as a user would set it up for the bundled model, with a clock in it.

Runs in TRL's own environment, and uses nothing of this project but the demo's questions:

    python -m benchmarks.peers.trl.train --out FILE --steps N --seed S

One JSON line an event: `ready`, `step` (seconds and memory of sampling and of the update) and
`evaluated` (held-out pass@1; its time is in no step).
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from demo.questions import Question, additions

BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
EVALUATION_BATCH = 256


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.trl.train")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--traffic", type=int, default=64, help="questions that are trained on")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--updates", type=int, default=1, help="of a batch; each is a step here")
    parser.add_argument("--batches", type=Path, help="folder to write what each step trained on")
    parser.add_argument("--evaluate-every", type=int, default=0, help="steps; 0: never")
    parser.add_argument("--held-out", type=int, default=64, help="questions of an evaluation")
    parser.add_argument("--held-out-samples", type=int, default=16)
    parser.add_argument("--target", type=float, default=1.0, help="pass@1 that ends the run")
    return parser.parse_args()


def answer(text: str) -> str | None:
    """The last box of a completion."""
    found = BOXED.findall(text)
    return found[-1].strip() if found else None


def majority_reward(samples: int) -> Any:
    """1 for the most frequent answer of a prompt's completions; they come one prompt at a time."""

    def reward(completions: list[list[dict[str, str]]], **_: object) -> list[float]:
        answers = [answer(turns[-1]["content"]) for turns in completions]
        rewards: list[float] = []
        for start in range(0, len(answers), samples):
            group = answers[start : start + samples]
            votes = Counter(vote for vote in group if vote is not None)
            label = min(votes, key=lambda vote: (-votes[vote], vote), default=None)
            rewards.extend(float(vote is not None and vote == label) for vote in group)
        return rewards

    return reward


class Memory:
    """The most that this process has had resident, from a moment on."""

    def reset(self) -> None:
        """Begin anew."""
        Path("/proc/self/clear_refs").write_text("5")

    def peak_mib(self) -> float:
        """Since the last reset."""
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024


class TimedTrainer(GRPOTrainer):
    """Knows how long the sampling of each step took, and what memory each part needed."""

    def __init__(self, *args: Any, batches: Path | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.memory = Memory()
        self.sampling_s = 0.0  # of this step
        self.writing_s = 0.0  # likewise, of its batch for the other side: not TRL's affair
        self.sampled_cpu_s = 0.0  # processor time of the process when it had sampled
        self.sampling_mib = 0.0
        self.num_tokens = 0
        self._batches = batches

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self.memory.reset()
        started = perf_counter()
        made = super()._generate_and_score_completions(inputs)
        self.sampling_s = perf_counter() - started
        self.sampling_mib = self.memory.peak_mib()
        self.num_tokens = int(made["completion_mask"].sum())
        if self._batches is not None:
            started = perf_counter()
            self._write(made, self._batches)
            self.writing_s = perf_counter() - started
        self.memory.reset()
        self.sampled_cpu_s = process_time()
        return made

    def _write(self, made: Any, folder: Path) -> None:
        samples = [
            {
                "prompt_ids": prompt[prompt_mask.bool()].tolist(),
                "completion_ids": completion[mask.bool()].tolist(),
                "advantage": advantage.item(),
            }
            for prompt, prompt_mask, completion, mask, advantage in zip(
                made["prompt_ids"],
                made["prompt_mask"],
                made["completion_ids"],
                made["completion_mask"],
                made["advantages"],
                strict=True,
            )
        ]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.state.global_step + 1}.json"
        path.write_text(json.dumps(samples))


class Clock(TrainerCallback):
    """Writes what each step cost, and evaluates between steps, off the clock."""

    def __init__(self, arguments: argparse.Namespace, questions: list[Question]) -> None:
        self.trainer: TimedTrainer
        self._arguments = arguments
        self._questions = questions
        self._started = 0.0
        self.train_s = 0.0
        self.peak_mib = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """The clock runs from here."""
        self.trainer.sampling_s = self.trainer.writing_s = 0.0
        self._started = perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """To here."""
        trainer = self.trainer
        seconds = perf_counter() - self._started - trainer.writing_s
        self.train_s += seconds
        update_mib = trainer.memory.peak_mib()
        self.peak_mib = max(self.peak_mib, trainer.sampling_mib, update_mib)
        self.write(
            "step",
            step=state.global_step,
            seconds=seconds,
            sampling_s=trainer.sampling_s,
            update_s=seconds - trainer.sampling_s,
            update_cpu_s=process_time() - trainer.sampled_cpu_s,
            num_tokens=trainer.num_tokens,
            sampling_mib=trainer.sampling_mib,
            update_mib=update_mib,
            train_s=self.train_s,
        )
        every = self._arguments.evaluate_every
        if every and state.global_step % every == 0 and self.evaluate(state.global_step):
            control.should_training_stop = True

    def evaluate(self, step: int) -> bool:
        """Held-out pass@1; whether it has reached the target."""
        started = perf_counter()
        share = pass_at_1(self.trainer, self._questions, self._arguments)
        seconds = perf_counter() - started
        self.write("evaluated", step=step, pass_at_1=share, train_s=self.train_s, seconds=seconds)
        return share >= self._arguments.target

    def write(self, event: str, **fields: Any) -> None:
        """One line."""
        with self._arguments.out.open("a") as lines:
            lines.write(json.dumps({"event": event, **fields}) + "\n")


@torch.no_grad()
def pass_at_1(
    trainer: TimedTrainer, questions: list[Question], arguments: argparse.Namespace
) -> float:
    """Mean share of right answers at temperature 1."""
    tokenizer, model = trainer.processing_class, trainer.model
    model.eval()
    asked = [question for question in questions for _ in range(arguments.held_out_samples)]
    right = 0
    for start in range(0, len(asked), EVALUATION_BATCH):
        part = asked[start : start + EVALUATION_BATCH]
        chats = [[{"role": "user", "content": question.text}] for question in part]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, return_tensors="pt", padding=True, return_dict=True
        )
        made = model.generate(
            **inputs, do_sample=True, temperature=1.0, max_new_tokens=arguments.max_tokens
        )
        texts = tokenizer.batch_decode(
            made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        right += sum(answer(text) == q.answer for text, q in zip(texts, part, strict=True))
    model.train()
    return right / len(asked)


def config(arguments: argparse.Namespace) -> GRPOConfig:
    """The same learning as ours: centred rewards, token mean, no KL."""
    passes = arguments.prompts * arguments.samples // arguments.micro_batch
    return GRPOConfig(
        output_dir=str(arguments.out.parent / "trl-output"),
        use_cpu=True,
        bf16=False,
        seed=arguments.seed,
        max_steps=arguments.steps,
        per_device_train_batch_size=arguments.micro_batch,
        gradient_accumulation_steps=passes // arguments.updates,
        steps_per_generation=passes,
        num_generations=arguments.samples,
        max_completion_length=arguments.max_tokens,
        mask_truncated_completions=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        learning_rate=arguments.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        beta=0.0,
        epsilon=0.2,
        epsilon_high=0.28,
        loss_type="dapo",
        scale_rewards="none",
        gradient_checkpointing=False,
        shuffle_dataset=False,
        dataloader_num_workers=0,
        save_strategy="no",
        logging_steps=10_000,
        report_to=[],
        disable_tqdm=True,
    )


def main() -> None:
    """Train, and write what it cost."""
    started = perf_counter()
    arguments = options()
    torch.set_num_threads(arguments.threads)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("")
    traffic = additions(arguments.seed, arguments.traffic)
    held_out = additions(arguments.seed, arguments.held_out, held_out=True)
    prompts = [{"prompt": [{"role": "user", "content": question.text}]} for question in traffic]
    clock = Clock(arguments, held_out)
    trainer = TimedTrainer(
        model=AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(arguments.model, padding_side="left"),
        reward_funcs=majority_reward(arguments.samples),
        args=config(arguments),
        train_dataset=Dataset.from_list(prompts),
        peft_config=LoraConfig(
            r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[clock],
        batches=arguments.batches,
    )
    clock.trainer = trainer
    clock.write("ready", seconds=perf_counter() - started)
    if arguments.evaluate_every:
        clock.evaluate(0)
    trainer.train()
    clock.write("done", train_s=clock.train_s, peak_mib=clock.peak_mib)


if __name__ == "__main__":
    main()
