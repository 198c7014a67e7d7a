"""A prompt as cycles know it, and what tells prompts apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from adapters.views import View, canonical

Messages = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as it was last asked."""

    query_id: str
    fingerprint: str
    messages: Messages  # empty: erased from the log since it was selected
    visits_left: int = 0  # updates that it may still take part in; 0 in the probe


class _Part(msgspec.Struct):
    text: str


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part]


def chat_messages(logged: Sequence[Any]) -> Messages | None:
    """The chat as plain text messages that end with the user's; None if it is no such chat."""
    try:
        chat = msgspec.convert(logged, list[_Message])
    except msgspec.ValidationError:
        return None
    messages = [{"role": message.role, "content": _text(message.content)} for message in chat]
    return messages if messages and messages[-1]["role"] == "user" else None


def _text(content: str | Sequence[_Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def fingerprints(messages: Messages, views: Sequence[View]) -> tuple[str, str]:
    """The prompt's fingerprint, and that of its question alone (no system messages)."""
    asked = canonical(messages[-1]["content"], views)
    chat = [*messages[:-1], {"role": "user", "content": asked}]
    question = [message for message in chat if message["role"] not in ("system", "developer")]
    return _digest(chat), _digest(question)


def _digest(chat: Messages) -> str:
    pairs = [[message["role"], message["content"]] for message in chat]
    return sha256(json.dumps(pairs, ensure_ascii=True).encode()).hexdigest()
