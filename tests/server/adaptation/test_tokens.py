"""What an engine said of a chat is kept, up to a bound."""

from __future__ import annotations

from server.adaptation.tokens import TokenCache


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_chat_is_known_once_it_was_put() -> None:
    cache = TokenCache()
    assert cache.get(chat("a")) is None
    cache.put(chat("a"), [3, 151_643])
    assert cache.get(chat("a")) == [3, 151_643]
    assert cache.get(chat("b")) is None
    assert cache.get([{"role": "system", "content": "a"}]) is None


def test_what_is_known_cannot_be_changed_by_who_asks() -> None:
    cache = TokenCache()
    given = [1, 2]
    cache.put(chat("a"), given)
    given.append(3)
    found = cache.get(chat("a"))
    assert found is not None
    found.append(4)
    assert cache.get(chat("a")) == [1, 2]


def test_the_chat_that_was_not_asked_for_the_longest_goes_first() -> None:
    cache = TokenCache(most=4)
    cache.put(chat("a"), [1, 1])
    cache.put(chat("b"), [2, 2])
    assert cache.get(chat("a")) is not None
    cache.put(chat("c"), [3])
    assert cache.get(chat("b")) is None
    assert cache.get(chat("a")) == [1, 1]
    cache.put(chat("d"), [4, 4, 4, 4, 4])  # more than all
    assert [cache.get(chat(text)) for text in "acd"] == [None, None, None]


def test_a_chat_that_is_put_again_counts_once() -> None:
    cache = TokenCache(most=4)
    for _ in range(5):
        cache.put(chat("a"), [1, 1, 1])
    cache.put(chat("b"), [2])
    assert cache.get(chat("a")) is not None
