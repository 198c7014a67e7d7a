"""A model directory is checked before anything starts with it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from server.engine.model_files import check_model
from server.errors import ModelFilesError


def safetensors(*names: str) -> bytes:
    """A file with a one-number tensor for each name."""
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}
        for i, name in enumerate(names)
    }
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4 * len(names))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A whole model."""
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", "architectures": ["Q"]}')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "model.safetensors").write_bytes(safetensors("a", "b"))
    return tmp_path


def test_a_whole_model_passes(model: Path) -> None:
    info = check_model(str(model))
    assert (info.path, info.model_type, info.warnings) == (model, "qwen2", ())
    assert info.num_weight_bytes == (model / "model.safetensors").stat().st_size


Break = Callable[[Path], object]


def cut(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def shards(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (lambda m: (m / "config.json").unlink(), "config.json is missing"),
        (lambda m: (m / "config.json").write_text("{"), "config.json is not valid JSON"),
        (lambda m: (m / "config.json").write_bytes(b'{"a":"\xff"}'), "not valid JSON"),
        (lambda m: (m / "config.json").write_text("{}"), "no model_type"),
        (lambda m: (m / "config.json").write_text('{"model_type":"q"}'), "no architectures"),
        (lambda m: (m / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda m: (m / "tokenizer.json").write_text(""), "tokenizer.json is empty"),
        (lambda m: (m / "tokenizer.json").write_text("[]"), "tokenizer.json is not valid"),
        (lambda m: (m / "model.safetensors").unlink(), "no weights"),
        (cut, "the copy is not complete"),
        (lambda m: (m / "model.safetensors").write_bytes(b""), "cut short"),
        (lambda m: (m / "model.safetensors").write_bytes(b"\xff" * 64), "cut short"),
        (
            lambda m: (m / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b"{{{{"),
            "broken header",
        ),
        (shards, "model-00002-of-00002.safetensors is missing"),
    ],
)
def test_a_broken_model_is_refused_by_name(model: Path, breaks: Break, message: str) -> None:
    breaks(model)
    with pytest.raises(ModelFilesError, match=message):
        check_model(str(model))


def test_all_shards_count(model: Path) -> None:
    shards(model)
    (model / "model-00002-of-00002.safetensors").write_bytes(safetensors("c"))
    files = model.glob("model-*.safetensors")
    assert check_model(str(model)).num_weight_bytes == sum(f.stat().st_size for f in files)


def test_a_missing_chat_template_is_a_warning(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    assert "no chat template" in check_model(str(model)).warnings[0]


def test_a_chat_template_in_the_tokenizers_settings_is_enough(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert check_model(str(model)).warnings == ()


def test_a_hub_id_passes() -> None:
    info = check_model("some-org/Some-Model-0.5B")
    assert info.path is None
    assert "hub id" in info.warnings[0]


@pytest.mark.parametrize("name", ["/no/such/model", "./nothing", "a/b/c", "nothing", "here/no"])
def test_what_is_neither_path_nor_hub_id_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(ModelFilesError, match="does not exist"):
        check_model(name)


def test_a_file_is_no_model(model: Path) -> None:
    with pytest.raises(ModelFilesError, match="is a file"):
        check_model(str(model / "config.json"))
