"""One LoRA adapter over the frozen base model, with its optimizer.

The weights exist twice. The *masters* are float32, and the optimizer moves them. The *served*
weights sit in PEFT's layers and hold the masters rounded to the dtype that the engine serves: what
is saved, what the engine computes with and what the trainer's forward uses are the same numbers.
(They are kept as float32 tensors, so that gradients are summed up in float32.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import Tensor

from adapters.batch import LearnerConfig
from adapters.training.adapter_files import (
    check_tensors,
    identity_tensors,
    lora_config,
    read_adapter,
    read_state,
    tensor_name,
    tensor_shapes,
    write_adapter,
    write_state,
)
from adapters.training.base_model import BaseModel, checkpoint_gradients
from adapters.training.logprobs import token_logprobs
from adapters.training.lora_linear import fuse
from adapters.training.microbatches import MicroBatch
from adapters.training.packing import run_packed

ADAPTER = "default"  # PEFT's name inside this process
MASTER, MEAN, SQUARE = "master/", "exp_avg/", "exp_avg_sq/"
NUM_UPDATES = "num_updates"


class NoAdapter(RuntimeError):
    """The request needs an opened adapter."""


@dataclass(frozen=True, slots=True)
class _OpenAdapter:
    config: LearnerConfig
    peft: Any
    served: dict[str, Tensor]  # PEFT's parameters, by their names in the file
    masters: dict[str, Tensor]
    optimizer: torch.optim.AdamW


class Policy:
    """The base model, and the adapter that is open on it, if any."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self._head: Any = base.model.get_output_embeddings()
        self._open: _OpenAdapter | None = None

    @property
    def config(self) -> LearnerConfig:
        """The opened adapter's configuration. Raises NoAdapter."""
        return self._opened().config

    @property
    def num_ids(self) -> int:
        """Size of the head's vocabulary."""
        return self._head.weight.shape[0]

    def open(self, config: LearnerConfig, adapter: Path | None, state: Path | None) -> int:
        """Begin on a copy of an adapter (None: the identity), in place of the one that is open.

        Returns the number of trained weights. Nothing has changed when it raises ValueError or
        OSError, about files that do not fit.
        """
        masters, optimizer_state = self._starting_point(config, adapter, state)
        self.close()
        linears = self.base.linears
        peft = get_peft_model(
            self.base.model, lora_config(linears, config.rank, config.alpha), adapter_name=ADAPTER
        )
        served = self._take_over()
        device = self.base.device
        masters = {name: tensor.to(device, torch.float32) for name, tensor in masters.items()}
        optimizer = torch.optim.AdamW(
            masters.values(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        _restore(optimizer, masters, optimizer_state)
        self._open = _OpenAdapter(config, peft, served, masters, optimizer)
        self._round()
        return sum(master.numel() for master in masters.values())

    def close(self) -> None:
        """Forget the adapter, if one is open; the base model is as it was loaded."""
        if self._open is not None:
            self._open.peft.unload()
            self._open = None

    def save(self, adapter: Path, state: Path | None) -> list[Path]:
        """Write the served weights in their dtype, and masters and optimizer into `state`."""
        opened = self._opened()
        files = write_adapter(
            adapter,
            lora_config(self.base.linears, opened.config.rank, opened.config.alpha),
            {name: tensor.to(self.base.dtype) for name, tensor in opened.served.items()},
        )
        if state is not None:
            files += write_state(state, _state_tensors(opened))
        return files

    def logprobs(self, batch: MicroBatch, *, temperature: float) -> Tensor:
        """(N,) log-probabilities of the completion tokens of the batch's samples."""
        with self._autocast():
            states = self._hidden(batch)[batch.positions]
            logprobs = token_logprobs(
                states, batch.targets, self._head, num_ids=self.num_ids, temperature=temperature
            )
        return logprobs if batch.copies is None else logprobs[batch.copies]

    def under(self, policy: str) -> AbstractContextManager[Any]:
        """Whose log-probabilities they are: "adapter", as always (raises NoAdapter), or "base"."""
        if policy == "adapter":
            self._opened()
            return nullcontext()
        return nullcontext() if self._open is None else self._open.peft.disable_adapter()

    @property
    def num_updates(self) -> int:
        """Updates that the optimizer has made, those before it was stored included."""
        states = self._opened().optimizer.state.values()
        return int(next((moments["step"].item() for moments in states), 0))

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of masters and optimizer, for `restore`."""
        tensors = _state_tensors(self._opened())
        return {name: tensor.clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Be again as when the snapshot was taken, which is used up."""
        opened = self._opened()
        for name, tensor in _with_prefix(snapshot, MASTER).items():
            opened.masters[name].copy_(tensor)
        opened.optimizer.state.clear()
        _restore(opened.optimizer, opened.masters, snapshot)
        self._round()

    def apply_gradients(self, learning_rate: float) -> float:
        """Clip the gradients, and update. Returns their norm before the clip.

        Raises FloatingPointError, with nothing changed, if the norm is not finite.
        """
        opened = self._opened()
        for group in opened.optimizer.param_groups:
            group["lr"] = learning_rate
        for name, master in opened.masters.items():
            master.grad = opened.served[name].grad
        norm = torch.nn.utils.clip_grad_norm_(
            opened.masters.values(), opened.config.max_grad_norm
        ).item()
        if not torch.isfinite(torch.tensor(norm)):
            raise FloatingPointError(f"the gradient's norm is {norm}")
        opened.optimizer.step()
        self._round()
        return norm

    def trained(self) -> list[Tensor]:
        """The weights that gradients are of."""
        return list(self._opened().served.values())

    def add_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Of `trained`, to what there is."""
        for weight, gradient in zip(self.trained(), gradients, strict=True):
            weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)

    def drop_gradients(self) -> None:
        """Forget gradients, as before an update and after a failed one."""
        if self._open is not None:
            for name, master in self._open.masters.items():
                master.grad = self._open.served[name].grad = None

    def save_memory(self) -> None:
        """Take less memory for updates from now on, and a third more time."""
        checkpoint_gradients(self.base.model)
        if self.base.device.type == "cuda":
            torch.cuda.empty_cache()

    def _hidden(self, batch: MicroBatch) -> Tensor:
        """Last hidden states of all tokens of `input_ids`, flat."""
        decoder = self.base.model.base_model
        if batch.layout is not None:
            return run_packed(decoder, batch.input_ids, batch.layout)
        hidden = decoder(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        return hidden.flatten(0, 1)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.base.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.base.device.type, self.base.dtype)

    def _opened(self) -> _OpenAdapter:
        if self._open is None:
            raise NoAdapter("no adapter is open")
        return self._open

    @torch.no_grad()
    def _round(self) -> None:
        opened = self._opened()
        for name, master in opened.masters.items():
            opened.served[name].copy_(master.to(self.base.dtype))

    def _take_over(self) -> dict[str, Tensor]:
        """PEFT's parameters; its layers compute in fewer steps from here on."""
        served: dict[str, Tensor] = {}
        for linear in self.base.linears:
            layer = self.base.model.get_submodule(linear.name)
            for part in ("lora_A", "lora_B"):
                served[tensor_name(linear.name, part)] = getattr(layer, part)[ADAPTER].weight
            fuse(layer, ADAPTER)
        return served

    def _starting_point(
        self, config: LearnerConfig, adapter: Path | None, state: Path | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The masters, and the optimizer's state by name (empty: fresh)."""
        linears = self.base.linears
        if adapter is None:
            tensors = identity_tensors(linears, config.rank, config.seed)
        else:
            tensors = read_adapter(adapter, linears, config.rank, config.alpha)
        if state is None:
            return tensors, {}
        stored = read_state(state)
        masters = _with_prefix(stored, MASTER)
        check_tensors(masters, tensor_shapes(linears, config.rank), state)
        if adapter is not None and not all(
            torch.equal(masters[name].to(tensor.dtype), tensor) for name, tensor in tensors.items()
        ):
            raise ValueError(f"{state} is not the state of {adapter}")
        return masters, stored


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _state_tensors(opened: _OpenAdapter) -> dict[str, Tensor]:
    def tensors() -> Iterator[tuple[str, Tensor]]:
        num_updates = torch.tensor(0.0)
        for name, master in opened.masters.items():
            yield MASTER + name, master
            if moments := opened.optimizer.state.get(master):
                num_updates = moments["step"]
                yield MEAN + name, moments["exp_avg"]
                yield SQUARE + name, moments["exp_avg_sq"]
        yield NUM_UPDATES, num_updates

    return dict(tensors())


def _restore(
    optimizer: torch.optim.AdamW, masters: Mapping[str, Tensor], stored: Mapping[str, Tensor]
) -> None:
    """Give the optimizer the moments that `_state_tensors` took from another one."""
    means, squares = _with_prefix(stored, MEAN), _with_prefix(stored, SQUARE)
    for name in means:
        master = masters[name]
        optimizer.state[master] = {
            "step": stored[NUM_UPDATES].clone(),
            "exp_avg": means[name].to(master.device),
            "exp_avg_sq": squares[name].to(master.device),
        }
