"""What is learned from, what is judged on, and what is left out."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ttrl_client.types import TenantSettings

from adapters.views import View
from server.adaptation import selection as selection_module
from server.adaptation.prompt import (
    Prompt,
    chat_messages,
    prompt_fingerprint,
    question_fingerprint,
)
from server.adaptation.sampling import derive_seed, split
from server.adaptation.selection import (
    Candidates,
    Selection,
    bounded,
    choose,
    in_probe,
    is_full,
    prompts_of_step,
    rounds,
    sort_candidates,
)
from server.db import log
from server.db.traffic import LoggedPrompt

from .scene import QUESTIONS, VIEWS, Scene, settings_of

untimed = hypothesis.settings(deadline=None)
VIEW = View(str(VIEWS[0]["pattern"]), tuple(VIEWS[0]["templates"]))


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def logged(texts: list[str]) -> list[LoggedPrompt]:
    return [LoggedPrompt(f"q{i}", user(text), len(text)) for i, text in enumerate(texts)]


def prompts(number: int, *, visits: int = 100) -> list[Prompt]:
    return [Prompt(f"q{i}", f"f{i}", user("x"), visits) for i in range(number)]


def offered(train: list[Prompt], probe: list[Prompt] | None = None) -> Candidates:
    """Candidates that are each a question of their own."""
    both = [*train, *(probe or [])]
    questions = {prompt.fingerprint: prompt.fingerprint for prompt in both}
    return Candidates(train, probe or [], questions=questions)


def chosen(
    candidates: Candidates, visits: dict[str, int], settings: TenantSettings, **more: Any
) -> Selection:
    return choose(bounded(candidates, visits, settings), visits, settings, **more)


def test_phrasings_of_one_question_are_one_prompt() -> None:
    one = prompt_fingerprint(user("What is 3 + 4?"), [VIEW])
    two = prompt_fingerprint(user("Please add: 3 + 4"), [VIEW])
    other = prompt_fingerprint(user("What is 4 + 3?"), [VIEW])
    assert one == two != other


def test_a_question_is_on_one_side_under_any_system_message() -> None:
    bare = user("What is 3 + 4?")
    asked = [{"role": "system", "content": "You are a pirate."}, *bare]
    assert prompt_fingerprint(bare, [VIEW]) != prompt_fingerprint(asked, [VIEW])
    assert question_fingerprint(bare, [VIEW]) == question_fingerprint(asked, [VIEW])


@pytest.mark.parametrize(
    "spelling",
    ["What is 3 + 4? ", "what is 3 + 4?", "What  is\n3 + 4?", "\uff37hat is 3\u00a0+ 4\uff1f"],
)
def test_a_question_is_on_one_side_in_any_spelling(spelling: str) -> None:
    plain, other = user("What is 3 + 4?"), user(spelling)
    assert prompt_fingerprint(plain, []) != prompt_fingerprint(other, [])
    assert question_fingerprint(plain, []) == question_fingerprint(other, [])


def test_spaces_do_not_keep_phrasings_apart() -> None:
    whole = [View(r"^What is (?P<a>\d+) \+ (?P<b>\d+)\?$", ("Compute {a} + {b}.",))]
    question = question_fingerprint(user("What is 3 + 4?"), whole)
    assert question == question_fingerprint(user(" What is 3  + 4? "), whole)
    assert question != question_fingerprint(user("What is 3 + 5?"), whole)


def chat(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def sides(chats: list[list[dict[str, str]]]) -> list[bool]:
    """Which of these logged chats, newest first, are held out."""
    logged = [LoggedPrompt(f"q{i}", messages, 9) for i, messages in enumerate(chats)]
    candidates = Candidates()
    asked = {log.fingerprint(messages) for messages in chats}
    sort_candidates(logged, settings_of(), None, candidates, asked)
    probe = {prompt.query_id for prompt in candidates.probe}
    return [prompt.query_id in probe for prompt in logged]


def test_a_chat_is_on_the_side_of_the_question_that_it_goes_on_from() -> None:
    questions = [chat(text) for text in QUESTIONS]
    doubts = [chat(text, "I think 8.", "Are you sure?") for text in QUESTIONS]
    more = [[*doubt, {"role": "assistant", "content": "No."}, *chat("Then?")] for doubt in doubts]
    found = sides([*more, *doubts, *questions])
    number = len(QUESTIONS)
    assert found[:number] == found[number : 2 * number] == found[2 * number :]
    assert len(set(found)) == 2


@pytest.mark.parametrize("was_asked", [True, False])
def test_an_example_before_all_questions_puts_them_on_no_side(was_asked: bool) -> None:
    example = ("What is 1 + 1?", "2")
    chats = [chat(*example, text) for text in QUESTIONS]
    found = sides([*chats, chat(example[0])] if was_asked else chats)
    assert len(set(found[:-1])) == 2


@untimed
@given(st.text(), st.floats(0.01, 0.98), st.floats(0.001, 0.02))
def test_a_larger_probe_holds_the_smaller_one(text: str, fraction: float, more: float) -> None:
    assert not in_probe(text, fraction) or in_probe(text, min(fraction + more, 1))


def test_the_probe_has_its_share() -> None:
    held_out = sum(in_probe(f"question {n}", 0.2) for n in range(5000))
    assert 850 < held_out < 1150


@untimed
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=80),
    st.sampled_from([0.2, 0.5]),
    st.integers(0, 2**31 - 1),
)
def test_nothing_of_the_probe_is_trained_on(numbers: list[int], fraction: float, seed: int) -> None:
    settings = settings_of(gate={"probe_fraction": fraction}, learning={"steps": 50})
    texts = [f"{('Compute', 'What is')[i % 2]} {n} + 1" for i, n in enumerate(numbers)]
    candidates = Candidates()
    sort_candidates(logged(texts), settings, None, candidates)
    selection = chosen(candidates, {}, settings, seed=seed)
    probe = {prompt.fingerprint for prompt in selection.probe}
    trained = {
        prompt.fingerprint
        for batch in islice(rounds(selection.prompts, 4), 200)
        for prompt in batch
    }
    assert not probe & trained
    assert len(selection.prompts) == len({p.fingerprint for p in selection.prompts})
    total = sum(selection.counts.values())
    assert total == len(numbers)  # every query is chosen, or counted with a reason


async def test_no_stored_group_is_of_the_probe(scene: Scene) -> None:
    await scene.tenant()
    first = await scene.run()
    second = await scene.run(settings_of(gate={"enabled": False}), seed=99)
    probes = {entry[1] for cycle in (first, second) for entry in (cycle.selection or {})["probe"]}
    groups = [*await scene.groups(first.id), *await scene.groups(second.id)]
    assert probes
    assert not probes & {group.fingerprint for group in groups}


def test_what_was_trained_on_never_becomes_probe() -> None:
    settings = settings_of(gate={"probe_fraction": 0.9})
    candidates = Candidates()
    sort_candidates(logged(QUESTIONS), settings, None, candidates)
    visited = candidates.probe[0].fingerprint
    selection = chosen(candidates, {visited: 1}, settings, seed=1)
    assert visited not in {prompt.fingerprint for prompt in selection.probe}
    assert selection.counts["trained_before"] == 1


def test_what_was_trained_on_in_another_spelling_never_becomes_probe() -> None:
    settings = settings_of(gate={"probe_fraction": 0.9}, views=[])
    candidates = Candidates()
    sort_candidates(logged([*QUESTIONS, *(f"{q} " for q in QUESTIONS)]), settings, None, candidates)
    first = candidates.probe[0]
    question = candidates.questions[first.fingerprint]
    selection = chosen(candidates, {first.fingerprint: 1}, settings, seed=1)
    assert question not in {candidates.questions[p.fingerprint] for p in selection.probe}
    assert selection.counts["trained_before"] == 2


def test_prompts_are_visited_no_more_than_allowed() -> None:
    settings = settings_of(learning={"max_visits": 3})
    candidates = offered(prompts(4, visits=0))
    selection = chosen(candidates, {"f0": 3, "f1": 1}, settings, seed=1)
    assert selection.counts["over_max_visits"] == 1
    visits = Counter(p.fingerprint for batch in rounds(selection.prompts, 2) for p in batch)
    assert visits == {"f1": 2, "f2": 3, "f3": 3}


def test_gathering_ends_when_both_sides_are_full() -> None:
    settings = settings_of(learning={"max_prompts": 2, "max_visits": 3}, gate={"probe_prompts": 1})
    full = offered(prompts(3), [Prompt("p", "p", user("x"))])
    assert is_full(bounded(full, {"f0": 3}, settings), settings)
    assert not is_full(bounded(full, {"f0": 3, "f1": 3}, settings), settings)
    assert not is_full(bounded(full, {"p": 1}, settings), settings)


def test_a_side_that_is_full_takes_no_more() -> None:
    settings = settings_of(learning={"max_prompts": 5}, gate={"probe_prompts": 3})
    candidates = offered(prompts(50), [Prompt(f"p{i}", f"p{i}", []) for i in range(9)])
    kept = bounded(candidates, {"f0": 100, "p1": 1}, settings)
    assert [prompt.query_id for prompt in kept.train] == ["q1", "q2", "q3", "q4", "q5"]
    assert [prompt.query_id for prompt in kept.probe] == ["p0", "p2", "p3"]
    assert kept.counts == {
        "over_max_visits": 1,
        "over_max_prompts": 44,
        "trained_before": 1,
        "over_probe_prompts": 5,
    }
    ranked = settings_of(learning={"max_prompts": 5, "prompt_order": "impact"})
    assert len(bounded(candidates, {}, ranked).train) == 20


async def test_what_no_side_takes_is_let_go_while_the_other_is_filled(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def sort_and_tell(found: Any, settings: Any, longest: Any, candidates: Any, asked: Any) -> Any:
        held.append(len(candidates.train))
        return sort_candidates(found, settings, longest, candidates, asked)

    monkeypatch.setattr(selection_module, "sort_candidates", sort_and_tell)
    monkeypatch.setattr(selection_module, "BATCH", 8)
    await scene.tenant()
    gate = {"probe_prompts": 500, "min_probe_prompts": 500}
    cycle = await scene.run(settings_of(learning={"max_prompts": 4}, gate=gate))
    assert len(held) == len(QUESTIONS) / 8
    assert max(held) == 4
    assert cycle.selection is not None
    assert sum(cycle.selection["counts"].values()) == len(QUESTIONS)


def test_the_newest_prompts_are_preferred() -> None:
    settings = settings_of(learning={"max_prompts": 2, "min_prompts": 1})
    selection = chosen(offered(prompts(5)), {}, settings, seed=1)
    assert {prompt.query_id for prompt in selection.prompts} == {"q0", "q1"}
    assert selection.counts["over_max_prompts"] == 3


@untimed
@given(st.integers(1, 20), st.integers(1, 10), st.integers(1, 12))
def test_rounds_visit_all_prompts_equally_often(number: int, size: int, steps: int) -> None:
    batches = list(islice(rounds(prompts(number), size), steps))
    assert all(len({p.fingerprint for p in batch}) == len(batch) for batch in batches)
    visits = Counter(p.fingerprint for batch in batches for p in batch)
    counts = [visits[p.fingerprint] for p in prompts(number)]
    assert max(counts) - min(counts) <= 1


def test_training_ends_with_the_last_visit() -> None:
    settings = settings_of(learning={"max_visits": 1})
    selection = chosen(offered(prompts(4)), {}, settings, seed=1)
    assert prompts_of_step(selection, 2, 2) is not None
    assert prompts_of_step(selection, 3, 2) is None


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (user("hi"), user("hi")),
        ([{"role": "user", "content": [{"type": "text", "text": "hi"}]}], user("hi")),
        ([*user("hi"), {"role": "assistant", "content": "hello"}], None),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], None),
        ([{"role": "user"}], None),
        (["hi"], None),
        ([], None),
    ],
)
def test_only_text_chats_that_end_with_a_question_are_learned_from(
    messages: list[Any], expected: list[dict[str, str]] | None
) -> None:
    assert chat_messages(messages) == expected


def test_every_refusal_is_counted_by_its_reason() -> None:
    long = LoggedPrompt("long", user("What is 1 + 1?"), 900)
    huge = LoggedPrompt("huge", user("x" * 70_000), None)
    odd = LoggedPrompt("odd", [{"role": "tool", "content": "1"}], 1)
    again = logged(["What is 1 + 2?", "Add 1 + 2"])
    candidates = Candidates()
    sort_candidates([long, huge, odd, *again], settings_of(), 512, candidates)
    assert candidates.counts == {"too_long": 2, "not_text": 1, "duplicate": 1}


@untimed
@given(st.integers(1, 300), st.integers(1, 9))
def test_samples_are_split_evenly(total: int, parts: int) -> None:
    sizes = split(total, parts)
    assert sum(sizes) == total
    assert max(sizes) - min(sizes) <= 1


def test_seeds_depend_on_everything() -> None:
    seeds = {derive_seed(*parts) for parts in [(1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1)]}
    assert len(seeds) == 4
    assert derive_seed(1, "a", 0) in seeds
    assert all(0 <= seed < 2**31 for seed in seeds)


HISTORY = {
    "f0": [("1", 1.0), ("1", 1.0), ("1", 1.0)],
    "f1": [("1", 0.5), ("2", 0.5), ("1", 0.6)],
    "f2": [(None, 0.5), (None, 0.5), (None, 0.5)],
    "f3": [("1", 0.2), ("1", 0.6), ("1", 0.9)],
    "f5": [("1", 0.5)],
}


def ordered(order: str, **learning: Any) -> list[str]:
    settings = settings_of(learning={"prompt_order": order, **learning})
    candidates = offered(prompts(6), prompts(9))
    selection = chosen(candidates, {}, settings, seed=1, history=HISTORY)
    return [prompt.fingerprint for prompt in selection.prompts]


def test_unseen_prompts_come_first_then_those_with_the_most_signal() -> None:
    # f1 wavers around a half, f5 did once; f0 is unanimous, f2 never had a label.
    assert ordered("variance") == ["f4", "f5", "f1", "f3", "f0", "f2"]


def test_prompts_with_too_few_visits_for_an_impact_come_before_those_with_one() -> None:
    found = ordered("impact")
    assert found[:2] == ["f4", "f5"]
    # Of the rest, f1 and f3 go with the mean curve; f0 was always right, f2 always without a label.
    assert set(found[2:4]) == {"f1", "f3"}


def test_the_order_decides_who_is_left_out() -> None:
    assert ordered("variance", max_prompts=4) == ["f4", "f5", "f1", "f3"]


def test_a_larger_pool_is_looked_at_where_prompts_are_ranked() -> None:
    candidates = offered(prompts(10), prompts(9))
    fresh = settings_of(learning={"max_prompts": 5})
    ranked = settings_of(learning={"max_prompts": 5, "prompt_order": "impact"})
    assert is_full(bounded(candidates, {}, fresh), fresh)
    assert not is_full(bounded(candidates, {}, ranked), ranked)
    assert is_full(offered(prompts(20), prompts(9)), ranked)


async def test_the_next_cycle_begins_with_what_is_still_uncertain(scene: Scene) -> None:
    await scene.tenant()
    first = await scene.run(settings_of(learning={"steps": 6}))
    seen = {group.fingerprint: group for group in await scene.groups(first.id)}
    settings = settings_of(learning={"steps": 20, "prompt_order": "variance"})
    second = await scene.run(settings, seed=8)
    assert second.selection is not None
    order = [fingerprint for _, fingerprint, _ in second.selection["prompts"]]
    unseen = [fingerprint for fingerprint in order if fingerprint not in seen]
    assert order[: len(unseen)] == unseen
    ratios = [seen[f].majority_ratio or 0 for f in order[len(unseen) :]]
    assert len(ratios) > 1
    assert [r * (1 - r) for r in ratios] == sorted((r * (1 - r) for r in ratios), reverse=True)
