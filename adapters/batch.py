"""The messages between the worker and the trainer process, one JSON line each.

The trainer is a process of its own (`python -m adapters.training`), so this file is its whole
interface: a request line on its standard input is answered by one reply line on its standard
output. Token ids and log-probabilities travel as they came from the engine, never re-tokenised.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class TrainSample(msgspec.Struct, frozen=True):
    """One sampled completion with its advantages. All per-token lists have length T, the
    completion's tokens.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    inference_logprobs: list[
        float
    ]  # (T,) nats, of the sampled tokens at the sampling temperature, from the engine
    advantages: list[float]  # (T,) one per completion token


class LearnerConfig(msgspec.Struct, frozen=True):
    """What one adapter is trained with. Defaults as in docs/algorithm.md."""

    rank: int = 16
    alpha: int = 32
    learning_rate: float = 1e-3  # peak of the schedule
    schedule: Literal["constant", "cosine"] = "constant"  # cosine: to 0 at `total_updates`
    warmup: float = 0.0  # share of `total_updates` in which the rate rises
    total_updates: int = 1  # planned for the whole cycle
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    epochs: int = 1  # times that a step goes through its samples
    minibatches: int = 1  # updates in one epoch
    temperature: float = 1.0  # of the sampling; logits are divided by it
    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float | None = 3.0  # no gradient above this ratio where the advantage is negative
    tis_cap: float | None = 2.0  # of the weight against the engine's log-probabilities; None: 1
    kl_coef: float = 0.0  # k3 to the base model by the disabled adapter; 0 skips that forward
    token_budget: int = 8192  # tokens of one micro-batch, of a padded one with its padding
    seed: int = 0


class Open(msgspec.Struct, frozen=True, tag="open"):
    """Begin on an adapter: a copy of `adapter_dir` (None: a fresh identity adapter), optimizer from
    `state_dir`.
    """

    config: LearnerConfig
    adapter_dir: str | None = None
    state_dir: str | None = None


class Step(msgspec.Struct, frozen=True, tag="step"):
    """Learn from a batch of samples (groups without variance already dropped): `epochs` times
    `minibatches` optimizer updates, or fewer if there are fewer samples than mini-batches.
    """

    samples: list[TrainSample]


class Save(msgspec.Struct, frozen=True, tag="save"):
    """Write the adapter in PEFT's format into `adapter_dir`, and the optimizer's state into
    `state_dir`.
    """

    adapter_dir: str
    state_dir: str | None = None


class Average(msgspec.Struct, frozen=True, tag="average"):
    """Write the mean of the weights of `adapter_dirs`, all of the rank and alpha of `config`, into
    `adapter_dir`. What is open stays open.
    """

    config: LearnerConfig
    adapter_dirs: list[str]
    adapter_dir: str


class Score(msgspec.Struct, frozen=True, tag="score"):
    """Log-probabilities of given completions under the opened adapter, or the base model."""

    samples: list[TrainSample]  # advantages and inference_logprobs are not read
    policy: str = "adapter"  # "adapter" | "base"
    temperature: float = 1.0


class Tokenize(msgspec.Struct, frozen=True, tag="tokenize"):
    """Token ids of a chat with the generation prompt, as the trainer's tokenizer sees it."""

    messages: list[dict[str, str]]


class Close(msgspec.Struct, frozen=True, tag="close"):
    """Forget the opened adapter; the base model stays loaded."""


Request = Open | Step | Save | Average | Score | Tokenize | Close


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """First line of the process, once the base model is loaded."""

    base_digest: str  # SHA-256 over the model's config and weight files
    num_parameters: int
    load_s: float


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The adapter is in memory."""

    num_trainable: int


class Stepped(msgspec.Struct, frozen=True, tag="stepped"):
    """What the step did. Means are over completion tokens, in all updates."""

    loss: float
    grad_norm: float  # before the clip, mean over the updates
    num_samples: int
    num_tokens: int
    mismatch: float  # mean |trainer_logprobs - inference_logprobs| before the step
    mismatch_kl: float  # k3 estimate of KL(inference || trainer) before the step
    clip_fraction: float
    entropy: (
        float  # mean -logprob of the sampled tokens: an unbiased estimate of the policy's entropy
    )
    kl_base: float | None  # k3 to the base model; None when kl_coef is 0
    seconds: float
    num_updates: int = 1
    learning_rate: float = 0.0  # of the last update


class Saved(msgspec.Struct, frozen=True, tag="saved"):
    """The files are written and synced."""

    files: list[str]


class Scored(msgspec.Struct, frozen=True, tag="scored"):
    """Per-token log-probabilities, aligned with `completion_ids` of the request."""

    logprobs: list[list[float]]


class Tokenized(msgspec.Struct, frozen=True, tag="tokenized"):
    """Token ids."""

    token_ids: list[int]


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """The adapter is forgotten."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The request could not be done; the process lives on and the opened adapter is as before the
    request.
    """

    kind: str  # exception class name
    message: str


Reply = Ready | Opened | Stepped | Saved | Scored | Tokenized | Closed | Failed
