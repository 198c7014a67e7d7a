"""Looks at a base model's files before anything is started with them.

A torn download or a wrong path is one clear line at start, not a stack trace of vLLM a minute
later. No weights are read, only the headers that say how long the files must be.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from server.errors import ModelFilesError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
INDEX = "model.safetensors.index.json"
TOKENIZERS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("vocab.json", "merges.txt"),
    ("tekken.json",),
)
MAX_HEADER_BYTES = 100 * 10**6  # safetensors' own limit


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the files say. A hub id that is not on this machine has no path, and zeros."""

    model: str
    path: Path | None
    model_type: str | None
    num_weight_bytes: int
    warnings: tuple[str, ...]


def check_model(model: str) -> ModelInfo:
    """Check the files of a model directory; a hub id passes, vLLM and the trainer load it.

    Raises:
        ModelFilesError: with the file that is missing or broken, and why.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return _check_directory(model, path.resolve())
    if path.exists():
        raise ModelFilesError(f"The model {model} is a file; name the directory that holds it.")
    if not is_hub_id(model):
        raise ModelFilesError(
            f"The model {model} does not exist: it is neither a directory (looked for "
            f"{path.absolute()}) nor a hub id such as org/name."
        )
    note = f"{model} is a hub id: vLLM and the trainer will load it"
    return ModelInfo(model, cached_snapshot(model), None, 0, (note,))


def is_hub_id(model: str) -> bool:
    """Whether this names a model on the hub; a name below an existing folder is a path."""
    return bool(HUB_ID.fullmatch(model)) and not Path(model).parent.is_dir()


def cached_snapshot(model: str) -> Path | None:
    """Where the hub's cache holds a model, if it does."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    entry = cache / f"models--{model.replace('/', '--')}"
    try:
        snapshot = entry / "snapshots" / (entry / "refs" / "main").read_text().strip()
    except OSError:
        return None
    return snapshot if snapshot.is_dir() else None


def _check_directory(model: str, path: Path) -> ModelInfo:
    config = _json_object(path / "config.json")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ModelFilesError(f"{path / 'config.json'} has no model_type.")
    if not config.get("architectures"):
        raise ModelFilesError(f"{path / 'config.json'} names no architectures.")
    warnings = list(_check_tokenizer(path))
    num_bytes = 0
    for weights in _weight_files(path):
        num_bytes += check_safetensors(weights)
    if not num_bytes:
        pickles = sorted(path.glob("pytorch_model*.bin"))
        if not pickles:
            raise ModelFilesError(f"{path} holds no weights: no model.safetensors, no {INDEX}.")
        num_bytes = sum(file.stat().st_size for file in pickles)
        warnings.append(f"{path} holds pickled weights; safetensors would be checked")
    return ModelInfo(model, path, model_type, num_bytes, tuple(warnings))


def _check_tokenizer(path: Path) -> Iterable[str]:
    """Raises without a usable tokenizer; yields warnings."""
    complete = [names for names in TOKENIZERS if all((path / name).is_file() for name in names)]
    if not complete:
        wanted = ", ".join(" + ".join(names) for names in TOKENIZERS)
        raise ModelFilesError(f"{path} holds no tokenizer: one of {wanted} is needed.")
    for name in complete[0]:
        if (path / name).stat().st_size == 0:
            raise ModelFilesError(f"{path / name} is empty.")
        if name.endswith(".json"):
            _json_object(path / name)
    settings = path / "tokenizer_config.json"
    in_settings = settings.is_file() and "chat_template" in _json_object(settings)
    files = ("chat_template.jinja", "chat_template.json")
    if not in_settings and not any((path / name).is_file() for name in files):
        yield f"{path} has no chat template: chat completions will be refused"


def _weight_files(path: Path) -> list[Path]:
    index = path / INDEX
    if not index.is_file():
        return sorted(path.glob("*.safetensors"))
    shards = _json_object(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelFilesError(f"{index} has no weight_map.")
    names: set[str] = {str(name) for name in shards.values()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    for name in sorted(names):
        if not (path / name).is_file():
            raise ModelFilesError(f"{path / name} is missing, but {INDEX} lists it.")
    return [path / name for name in sorted(names)]


def check_safetensors(file: Path) -> int:
    """Size of a safetensors file whose header fits its length; ModelFilesError otherwise."""
    try:
        num_bytes, length, header = _header(file)
    except OSError as error:
        raise ModelFilesError(f"{file} cannot be read: {error.strerror}") from error
    if len(header) < 2:
        raise ModelFilesError(f"{file} is no safetensors file, or it was cut short.")
    try:
        tensors = msgspec.json.decode(header, type=dict[str, dict[str, Any]])
        ends = [int(t["data_offsets"][1]) for name, t in tensors.items() if name != "__metadata__"]
    except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError, ValueError) as error:
        raise ModelFilesError(f"{file} has a broken header: {error}") from error
    expected = 8 + length + max(ends, default=0)
    if num_bytes != expected:
        raise ModelFilesError(
            f"{file} has {num_bytes} bytes, its header says {expected}: the copy is not complete."
        )
    return num_bytes


def _header(file: Path) -> tuple[int, int, bytes]:
    """The file's size, its header's length, and the header; empty when it cannot be one."""
    num_bytes = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length: int = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        fits = length <= min(MAX_HEADER_BYTES, num_bytes - 8)
        return num_bytes, length, stream.read(length) if fits else b""


def _json_object(file: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except FileNotFoundError as error:
        raise ModelFilesError(f"{file} is missing.") from error
    except OSError as error:
        raise ModelFilesError(f"{file} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ModelFilesError(f"{file} is not valid JSON: {error}") from error
