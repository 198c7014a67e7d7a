"""The bundled model's tokenizer: one token a byte, and the ChatML markers and roles.

It is a Qwen2 tokenizer with no merges. Loaders choose the tokenizer class by the architecture in
`config.json` whatever the tokenizer's own files say, and the Qwen2 class works on the byte-level
alphabet, where a space is `Ġ`. A vocabulary of plain characters loads without an error, and then
loses every space and newline. All 256 bytes are tokens, so nothing is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from tokenizers import pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerBase, Qwen2Tokenizer

PAD = "<|endoftext|>"
START = "<|im_start|>"
END = "<|im_end|>"
MARKERS = (PAD, START, END)
PAD_ID, START_ID, END_ID = range(3)
ROLES = ("system", "user", "assistant")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make_tokenizer(max_length: int) -> Qwen2Tokenizer:
    """The tokenizer, ready to be saved beside the weights."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*MARKERS, *ROLES, *alphabet))}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        unk_token=PAD,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    # Roles are ordinary text too ("ask the user"), so decoding must not skip them.
    roles: list[str | AddedToken] = [
        AddedToken(role, normalized=False, special=False) for role in ROLES
    ]
    tokenizer.add_tokens(roles)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def chat_ids(
    tokenizer: PreTrainedTokenizerBase, chat: Sequence[dict[str, str]], *, prompt: bool
) -> list[int]:
    """The token ids of a chat; with `prompt`, followed by the opening of the next answer."""
    ids = tokenizer.apply_chat_template(
        list(chat), tokenize=True, return_dict=False, add_generation_prompt=prompt
    )
    return cast(list[int], ids)
