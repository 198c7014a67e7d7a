from __future__ import annotations

from benchmarks.weak_additions import column_sums, weak_additions
from demo.model_lessons import WEAK_SUMS
from demo.questions import is_held_out, phrasings


def test_each_wording_meets_the_sum_that_it_gets_wrong() -> None:
    traffic, fresh = weak_additions(3, 4), weak_additions(3, 2, held_out=True)
    assert weak_additions(3, 4) == traffic
    assert not any(is_held_out(q.a, q.b) for q in traffic)
    assert all(is_held_out(q.a, q.b) for q in fresh)
    for question in (*traffic, *fresh):
        assert column_sums(question) >= set(WEAK_SUMS)
        assert question.views == phrasings(question.kind, question.a, question.b)
        assert question.answer == str(question.a + question.b)


def test_column_sums_count_what_is_carried() -> None:
    (question,) = weak_additions(1, 1)
    columns = [(int(x), int(y)) for x, y in zip(str(question.a), str(question.b), strict=True)]
    carried, sums = 0, set[int]()
    for x, y in reversed(columns):
        carried, digit = divmod(x + y + carried, 10)
        sums.add(10 * carried + digit)
    assert column_sums(question) == sums
