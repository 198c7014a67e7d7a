"""A prompt as cycles know it, and what tells prompts apart."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from unicodedata import normalize

import msgspec

from adapters.views import SYSTEM_ROLES, View, canonical
from server.db.log import fingerprint

Messages = list[dict[str, str]]
MAX_OPENING = 16  # messages of a chat among which its question is looked for


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


def opening(logged: list[Any], asked: Collection[str]) -> int:
    """How many messages of a logged chat lead up to its question: a chat that goes on from one that
    was `asked` (fingerprints of the log) is about the same question. Examples that a client puts in
    front of every question were mostly never asked.
    """
    for number in range(1, min(len(logged), MAX_OPENING)):
        if logged[number - 1]["role"] == "user" and fingerprint(logged[:number]) in asked:
            return number
    return len(logged)


def prompt_fingerprint(messages: Messages, views: Sequence[View]) -> str:
    """What the phrasings of one prompt share."""
    asked = canonical(messages[-1]["content"], views)
    return _digest([*messages[:-1], {"role": "user", "content": asked}])


def question_fingerprint(messages: Messages, views: Sequence[View]) -> str:
    """What all prompts with one question share: system messages are left out, and spaces, case and
    width change nothing.
    """
    text = messages[-1]["content"]
    asked = canonical(text, views)
    if asked == text:  # perhaps only spaces keep the views from matching
        asked = canonical(_spaced(text), views)
    chat = [*messages[:-1], {"role": "user", "content": asked}]
    plain = [
        {"role": message["role"], "content": _spaced(message["content"]).casefold()}
        for message in chat
        if message["role"] not in SYSTEM_ROLES
    ]
    return _digest(plain)


def _spaced(text: str) -> str:
    return " ".join(normalize("NFKC", text).split())


def _digest(chat: Messages) -> str:
    pairs = [[message["role"], message["content"]] for message in chat]
    return sha256(json.dumps(pairs, ensure_ascii=True).encode()).hexdigest()
