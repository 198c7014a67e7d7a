"""What kinds of models the trainer takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_a_model_that_changes_its_logits_after_the_head_is_refused(model_dir: Path) -> None:
    from transformers import Qwen2ForCausalLM

    from adapters.training.base_model import check_logits

    model: Any = Qwen2ForCausalLM.from_pretrained(model_dir)
    check_logits(model)
    usual = model.forward

    def capped(*arguments: Any, **named: Any) -> Any:
        output = usual(*arguments, **named)
        output.logits = (output.logits / 30).tanh() * 30
        return output

    model.forward = capped
    with pytest.raises(ValueError, match="changes its logits"):
        check_logits(model)


def test_no_dropout_is_left(model_dir: Path, tmp_path: Path) -> None:
    import torch
    from transformers import Starcoder2Config, Starcoder2ForCausalLM

    from adapters.training.base_model import checkpoint_gradients, load_base

    config = Starcoder2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        residual_dropout=0.5,
        embedding_dropout=0.5,
        dtype="float32",
    )
    Starcoder2ForCausalLM(config).save_pretrained(tmp_path)
    for file in model_dir.glob("token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = load_base(str(tmp_path), device="cpu", dtype="float32").model
    ids = torch.arange(1, 9)[None]
    before = model(input_ids=ids).logits
    checkpoint_gradients(model)
    assert torch.equal(model(input_ids=ids).logits, before)


def test_no_dropout_is_left_in_a_part_of_a_config() -> None:
    from transformers import LlavaConfig, Qwen2Config

    from adapters.training.base_model import _forbid_dropout

    config = LlavaConfig(text_config=Qwen2Config(attention_dropout=0.5))
    text: Any = config.text_config
    assert text.attention_dropout == 0.5
    _forbid_dropout(config)
    assert text.attention_dropout == 0.0
