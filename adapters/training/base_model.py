"""The frozen base model with its tokenizer, loaded once for the life of the process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from adapters.base_digest import base_digest
from adapters.training.norms import fuse_norms
from adapters.training.packing import try_packing
from adapters.training.parallel import Workers
from adapters.training.rotary import fuse_rotary

MODEL_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Heads that change the logits after the projection; the trainer calls the projection alone.
LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling")
LOGIT_TOLERANCE = 1e-3  # of the largest


@dataclass(frozen=True, slots=True)
class LinearShape:
    """A linear layer of the base model that gets a LoRA pair."""

    name: str  # dotted, in the base model
    num_inputs: int
    num_outputs: int


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What `load_base` gives. `dtype` is that of the base weights and of the served adapter."""

    model: Any  # transformers' PreTrainedModel; LoRA layers are put into it in place
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    linears: tuple[LinearShape, ...]
    packed: bool  # whether it computes packed rows; else samples are padded
    workers: Workers
    digest: str
    num_parameters: int
    load_s: float


def model_dir(model: str) -> Path:
    """The folder of a path or hub id; a hub id is downloaded unless HF_HUB_OFFLINE is set."""
    path = Path(model)
    if path.is_dir():
        return path.resolve()
    return Path(snapshot_download(model, allow_patterns=MODEL_FILES))


def pick_device(device: str) -> torch.device:
    """`auto` is the first GPU if there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def pick_dtype(dtype: str, device: torch.device, config: Any) -> torch.dtype:
    """`auto` is float32 on CPU (it is exact, and small models are as fast); on a GPU it is bfloat16
    unless the model itself is float32.
    """
    if dtype != "auto":
        return DTYPES[dtype]
    if device.type == "cpu" or config.dtype == torch.float32:
        return torch.float32
    return torch.bfloat16


def linear_shapes(model: Any) -> tuple[LinearShape, ...]:
    """All linear layers except the head, as PEFT's `all-linear` and vLLM's LoRA see them."""
    head = model.get_output_embeddings()
    shapes = tuple(
        LinearShape(name, module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    if not shapes:
        raise ValueError(f"{type(model).__name__} has no torch.nn.Linear layers to adapt")
    return shapes


def shapes_without_weights(model: str) -> tuple[LinearShape, ...]:
    """The linear layers of a model, from its config alone."""
    config = AutoConfig.from_pretrained(model_dir(model))
    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return linear_shapes(auto.from_config(config))


def load_base(
    model: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    gradient_checkpointing: bool = False,
    workers: int = 1,
) -> BaseModel:
    """Load and freeze a causal language model. `workers`: micro-batches at the same time.

    Raises OSError, ValueError or FileNotFoundError.
    """
    started = time.perf_counter()
    folder = model_dir(model)
    digest = base_digest(folder)
    config = AutoConfig.from_pretrained(folder)
    _refuse_changed_logits(config)
    _forbid_dropout(config)
    target = pick_device(device)
    weights_dtype = pick_dtype(dtype, target, config)
    auto: Any = AutoModelForCausalLM  # its stubs do not know what it returns
    loaded = auto.from_pretrained(folder, config=config, dtype=weights_dtype)
    loaded.to(target).requires_grad_(False).eval()
    check_logits(loaded)
    fuse_norms(loaded)
    fuse_rotary(loaded)
    if gradient_checkpointing:
        checkpoint_gradients(loaded)
    return BaseModel(
        model=loaded,
        tokenizer=AutoTokenizer.from_pretrained(folder),
        device=target,
        dtype=weights_dtype,
        linears=linear_shapes(loaded),
        packed=_attends_to_all(config) and try_packing(loaded),
        workers=Workers(workers),
        digest=digest,
        num_parameters=sum(parameter.numel() for parameter in loaded.parameters()),
        load_s=time.perf_counter() - started,
    )


def checkpoint_gradients(model: Any) -> None:
    """Keep only the layers' inputs for the backward pass, and compute the rest again there.

    Layers recompute only in training mode; without dropout, as `load_base` leaves it, it computes
    the same numbers.
    """
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()


def _attends_to_all(config: Any) -> bool:
    """Whether the config says that each layer attends to all tokens before: no window, no state."""
    return set(getattr(config, "layer_types", None) or ()) == {"full_attention"}


def _refuse_changed_logits(config: Any) -> None:
    for name in LOGIT_CHANGES:
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise ValueError(f"models with {name} are not supported by the trainer")


def _forbid_dropout(config: Any) -> None:
    """Whatever a model's family calls it, and in whichever of its parts: an old policy's numbers
    must be there again.
    """
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            _forbid_dropout(value)
        elif isinstance(value, float) and ("dropout" in name or "pdrop" in name):
            setattr(config, name, 0.0)


@torch.no_grad()
def check_logits(model: Any) -> None:
    """Raises ValueError where the model does more to its logits than the head, whatever its
    config calls that.
    """
    ids = torch.arange(1, 9, device=model.device)[None]
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    ours = model.get_output_embeddings()(states).float()
    theirs = model(input_ids=ids, use_cache=False).logits.float()
    if not torch.allclose(ours, theirs, rtol=0, atol=LOGIT_TOLERANCE * theirs.abs().max().item()):
        raise ValueError(f"{type(model).__name__} changes its logits after the head")
