"""The bundled model's files: small, of the right architecture, and with a faithful tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from demo.make_model import IGNORED, MAX_LENGTH, make_batches, make_config, tokenized
from demo.model_lessons import lessons
from demo.model_tokenizer import END_ID, MARKERS, PAD_ID, ROLES, chat_ids, make_tokenizer

MODEL = Path(__file__).parents[2] / "demo" / "model"
MIB = 2**20
TEXTS = (
    " two  spaces, a tab\tand\n\nnewlines \n",
    "".join(chr(code) for code in range(32, 127)),
    "user assistant system users",
    "3×4 ≤ 12 – “naïve” 数 🙂",
    "It's 12 o'clock , isn't it ?",
    "",
)
CHATS = (
    [{"role": "user", "content": "What is 1234+5678?"}],
    [
        {"role": "system", "content": "Put the final answer in \\boxed{}.\nBe  brief. "},
        {"role": "user", "content": "Add 1 and 2."},
        {"role": "assistant", "content": "1+2=3\n\\boxed{3}"},
        {"role": "user", "content": " And for the user: 3 and 4? "},
    ],
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(MODEL)


def _config(name: str) -> dict[str, Any]:
    return json.loads((MODEL / name).read_text(encoding="utf-8"))


def test_the_model_is_small() -> None:
    sizes = {each.name: each.stat().st_size for each in MODEL.rglob("*") if each.is_file()}
    assert sum(sizes.values()) <= 8 * MIB
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= sizes.keys()


def test_the_config_is_what_the_script_makes() -> None:
    committed = _config("config.json")
    assert committed["architectures"] == ["Qwen2ForCausalLM"]
    assert committed["model_type"] == "qwen2"
    made = make_config(make_tokenizer(MAX_LENGTH)).to_dict()
    # The version of transformers that wrote the file is no property of the model.
    skipped = {"transformers_version", "_name_or_path"}
    assert {key: made[key] for key in committed.keys() - skipped} == {
        key: value for key, value in committed.items() if key not in skipped
    }


def test_the_tokenizer_is_what_the_script_makes(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    make_tokenizer(MAX_LENGTH).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text()) == _config("tokenizer.json")
    assert len(tokenizer) == _config("config.json")["vocab_size"]


def test_answers_end_at_the_end_marker(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.eos_token_id in _config("generation_config.json")["eos_token_id"]


def test_markers_and_roles_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    for token in (*MARKERS, *ROLES):
        assert len(tokenizer(token)["input_ids"]) == 1
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == END_ID
    assert tokenizer.pad_token_id == PAD_ID


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("prompt", [True, False])
def test_the_chat_template_gives_the_same_ids_as_its_text(
    tokenizer: PreTrainedTokenizerFast, chat: list[dict[str, str]], prompt: bool
) -> None:
    ids = chat_ids(tokenizer, chat, prompt=prompt)
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=prompt, tokenize=False)
    assert isinstance(text, str)
    assert ids == tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    for message in chat:
        assert f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" in text


def test_the_template_adds_no_system_message(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_training_reads_the_ids_that_a_request_will_have(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    conversations = lessons(3, 40)
    examples = tokenized(make_tokenizer(MAX_LENGTH), conversations)
    for lesson, (ids, begin) in zip(conversations, examples, strict=True):
        chat = lesson.messages()
        asked = tokenizer.apply_chat_template(chat[:-1], add_generation_prompt=True, tokenize=False)
        assert isinstance(asked, str)
        assert ids[:begin] == tokenizer(asked)["input_ids"]
        assert tokenizer.decode(ids) == f"{asked}{lesson.solution}<|im_end|>\n"


def test_the_loss_counts_the_solution_only() -> None:
    made = make_tokenizer(MAX_LENGTH)
    (batch,) = make_batches(made, lessons(4, 8), seed=0)
    for ids, labels in zip(batch.ids.tolist(), batch.labels.tolist(), strict=True):
        counted = [label for label in labels if label != IGNORED]
        text = str(made.decode(counted))
        assert text.endswith("}<|im_end|>\n")
        assert "<|im_start|>" not in text
        assert text in str(made.decode(ids))
