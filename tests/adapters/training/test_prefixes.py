"""Which samples share what."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.batch import TrainSample
from adapters.training.prefixes import Group, group, sequences_of

BUDGET = 10_000
SAMPLES = st.lists(
    st.builds(
        lambda prompt, completion: TrainSample(prompt, completion, [], []),
        st.sampled_from([[1], [1, 2, 3], [1, 2, 3, 4, 5], [7, 7, 7, 7]]),
        st.lists(st.integers(1, 3), min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=20,
)


def samples(*texts: str) -> list[TrainSample]:
    """A letter is a token; the prompt ends with a bar."""
    made: list[TrainSample] = []
    for text in texts:
        prompt, _, completion = text.partition("|")
        made.append(TrainSample(list(map(ord, prompt)), list(map(ord, completion)), [], []))
    return made


def groups(*texts: str, budget: int = BUDGET) -> list[tuple[int, list[str]]]:
    """Of each group its prefix, and what is read of its sequences."""
    found = group(sequences_of(samples(*texts)), budget)
    return [
        (one.prefix, ["".join(map(chr, sequence.tokens)) for sequence in one.sequences])
        for one in found
    ]


def test_the_same_answer_is_read_once() -> None:
    [first, second] = sequences_of(samples("ab|cd", "ab|ce", "ab|xd", "ab|cd"))
    assert first.indices == (0, 1, 3)  # what comes last is only predicted
    assert second.indices == (2,)


def test_the_same_tokens_are_read_once_wherever_the_prompt_ends() -> None:
    [only] = sequences_of(samples("ab|cd", "abc|d"))
    assert only.indices == (0, 1)


def test_a_prompt_is_the_prefix_of_its_samples() -> None:
    assert groups("prompt|one.", "prompt|two.", "other|one.", "other|two.") == [
        (5, ["otherone", "othertwo"]),
        (6, ["promptone", "prompttwo"]),
    ]


def test_a_prefix_goes_on_as_long_as_answers_are_alike() -> None:
    assert groups("p|the sum is 1.", "p|the sum is 2.") == [
        (12, ["pthe sum is 1", "pthe sum is 2"])
    ]


def test_instructions_are_shared_by_short_questions() -> None:
    texts = [f"long instructions {letter}|{letter}." for letter in "abcd"]
    assert [prefix for prefix, _ in groups(*texts)] == [len("long instructions ")]


def test_questions_are_not_repeated_for_short_instructions() -> None:
    texts = [f"do {question}|{end}." for question in ("question 1", "problem 2") for end in "abcd"]
    assert sorted(prefix for prefix, _ in groups(*texts)) == [
        len("do problem 2"),
        len("do question 1"),
    ]


def test_a_group_is_cut_where_that_saves_tokens() -> None:
    texts = [f"q|{way}{end}." for way in ("first way ", "second way ") for end in "abc"]
    assert [prefix for prefix, _ in groups(*texts)] == [len("qfirst way "), len("qsecond way ")]
    assert [prefix for prefix, _ in groups("question|aab.", "question|aac.", "question|b.")] == [8]


def test_samples_that_share_nothing_are_together() -> None:
    assert groups("a|bc", "d|ef") == [(0, ["ab", "de"])]


def test_each_row_of_a_group_has_the_prefix() -> None:
    [one] = group(sequences_of(samples("prefix|ab.", "prefix|ac.", "prefix|bd.")), BUDGET)
    assert one.prefix == 6
    assert [one.num_read(budget) for budget in (BUDGET, 6, 4, 2)] == [12, 12, 18, 24]


def test_many_beginnings_within_each_other_are_no_deep_recursion() -> None:
    texts = [f"p|{'a' * length}b." for length in range(3000)]
    found = group(sequences_of(samples(*texts)), BUDGET)
    assert sum(len(one.sequences) for one in found) == 3000


def tokens_read(found: Sequence[Group]) -> int:
    return sum(one.prefix + sum(len(s.tokens) - one.prefix for s in one.sequences) for one in found)


@given(SAMPLES)
@pytest.mark.filterwarnings("error")
def test_every_sample_is_in_one_group_that_shares_its_beginning(batch: list[TrainSample]) -> None:
    sequences = sequences_of(batch)
    found = group(sequences, BUDGET)
    indices = [index for one in found for sequence in one.sequences for index in sequence.indices]
    assert sorted(indices) == list(range(len(batch)))
    for one in found:
        assert len({sequence.tokens[: one.prefix] for sequence in one.sequences}) == 1
        assert all(len(sequence.tokens) > one.prefix for sequence in one.sequences)
        for sequence in one.sequences:
            for index in sequence.indices:
                sample = batch[index]
                assert sequence.tokens == (*sample.prompt_ids, *sample.completion_ids[:-1])
    assert tokens_read(found) <= sum(len(sequence.tokens) for sequence in sequences)
