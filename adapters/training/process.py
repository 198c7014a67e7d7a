"""The trainer's loop: a request line in, a reply line out, until the input ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from adapters.batch import (
    Average,
    Close,
    Closed,
    Failed,
    LearnerConfig,
    Open,
    Opened,
    Ready,
    Reply,
    Request,
    Save,
    Saved,
    Score,
    Scored,
    Step,
    Tokenize,
    Tokenized,
)
from adapters.training.averaging import average
from adapters.training.base_model import BaseModel
from adapters.training.policy import Policy
from adapters.training.update import score, update

logger = logging.getLogger(__name__)


def serve(load: Callable[[], BaseModel], requests: BinaryIO, replies: BinaryIO) -> int:
    """Load the base model, say so, and answer requests. Returns the exit status.

    A base model that cannot be loaded is answered `Failed` instead of `Ready`, with status 1.
    """
    encoder = msgspec.json.Encoder()

    def send(reply: Reply) -> None:
        replies.write(encoder.encode(reply) + b"\n")
        replies.flush()

    try:
        base = load()
    except Exception as error:
        logger.exception("the base model cannot be loaded")
        send(Failed(type(error).__name__, str(error)))
        return 1
    send(Ready(base.digest, base.num_parameters, base.load_s))
    trainer = Trainer(base)
    decoder = msgspec.json.Decoder(Request)
    for line in requests:
        try:
            reply = trainer.answer(decoder.decode(line))
        except Exception as error:  # the outermost loop: the process outlives a failed request
            logger.exception("a request failed")
            reply = Failed(type(error).__name__, str(error))
        try:
            send(reply)
        except BrokenPipeError:
            break
    return 0


class Trainer:
    """Answers requests, one at a time."""

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self._policy = Policy(base)

    def answer(self, request: Request) -> Reply:
        """Do what the request says. Any exception means that it was not done."""
        match request:
            case Open(config, adapter_dir, state_dir):
                _check_config(config)
                return Opened(self._policy.open(config, _path(adapter_dir), _path(state_dir)))
            case Step(samples):
                return update(self._policy, samples)
            case Save(adapter_dir, state_dir):
                files = self._policy.save(Path(adapter_dir), _path(state_dir))
                return Saved([str(file) for file in files])
            case Average(config, adapter_dirs, adapter_dir):
                files = average(
                    self._base, config, list(map(Path, adapter_dirs)), Path(adapter_dir)
                )
                return Saved([str(file) for file in files])
            case Score():
                return Scored(self._score(request))
            case Tokenize(messages):
                return Tokenized(self._tokenize(messages))
            case Close():
                self._policy.close()
                return Closed()

    def _score(self, request: Score) -> list[list[float]]:
        _check_temperature(request.temperature)
        return score(
            self._policy,
            request.samples,
            under=request.policy,
            temperature=request.temperature,
            token_budget=LearnerConfig().token_budget,
        )

    def _tokenize(self, messages: list[dict[str, str]]) -> list[int]:
        return self._base.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _check_config(config: LearnerConfig) -> None:
    _check_temperature(config.temperature)
    if config.rank < 1 or config.alpha < 1 or config.token_budget < 1:
        raise ValueError("rank, alpha and token_budget are at least 1")
    if not config.learning_rate >= 0 or not config.max_grad_norm > 0:
        raise ValueError("learning_rate is at least 0, max_grad_norm is over 0")
    if config.epochs < 1 or config.minibatches < 1 or config.total_updates < 1:
        raise ValueError("epochs, minibatches and total_updates are at least 1")
    if not 0 <= config.warmup < 1 or not config.kl_coef >= 0:
        raise ValueError("warmup is from 0 to 1, kl_coef is at least 0")
    if not 0 < config.clip_low <= 1 or not config.clip_high > 0:
        raise ValueError("clip_low is over 0, at most 1; clip_high is over 0")
    _check_caps(config)


def _check_caps(config: LearnerConfig) -> None:
    if config.dual_clip is not None and not config.dual_clip > 1:
        raise ValueError("dual_clip is over 1")
    if config.tis_cap is not None and not config.tis_cap > 0:
        raise ValueError("tis_cap is over 0")


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature is over 0, not {temperature}")
