"""`ttrl-server vote`: lines in, lines out, whatever the lines are."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from typer.testing import CliRunner, Result

from adapters.answers import AnswerSpec, Equivalence
from server.cli import cli
from server.errors import ConfigurationError
from server.vote import command
from server.vote.command import lines_of
from server.vote.groups import READ_AHEAD, BadLine, Judged, VoteRules, vote_on
from tests.fakes.defects import break_on

HALF = [r"\boxed{0.5}", r"\boxed{\frac12}", r"\boxed{2}", r"\boxed{2}", r"\boxed{1/2}", "no idea"]
GROUP = {"id": "half", "responses": HALF, "ground_truth": r"\frac{1}{2}"}


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["vote", *arguments], input=stdin)


def lines(*groups: object) -> str:
    return "".join(json.dumps(group) + "\n" for group in groups)


def votes(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def judge() -> Iterator[Equivalence]:
    with Equivalence() as made:
        yield made


def test_the_class_wins_over_the_string() -> None:
    result = run("-", stdin=lines(GROUP))
    assert result.exit_code == 0
    assert votes(result) == [
        {
            "id": "half",
            "label": "1/2",
            "majority_ratio": 0.5,
            "rewards": [1.0, 1.0, 0.0, 0.0, 1.0, 0.0],
            "answers": ["1/2", "1/2", "2", "2", "1/2", None],
            "label_correct": True,
        }
    ]


def test_the_strict_vote_counts_strings() -> None:
    (vote,) = votes(run("-", "--estimator", "majority_strict", stdin=lines(GROUP)))
    assert vote["label"] == r"\frac{1}{2}"
    assert vote["answers"] == ["0.5", r"\frac{1}{2}", "2", "2", r"\frac{1}{2}", None]
    assert vote["majority_ratio"] == pytest.approx(2 / 6)
    assert vote["rewards"] == [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]


def test_the_totals_are_on_stderr() -> None:
    other = {"id": 7, "responses": [r"\boxed{1}", "x"], "is_ground_truth": [1, 0]}
    empty = {"responses": ["x"], "ground_truth": "1"}
    result = run("-", stdin=lines(GROUP, other, empty))
    told = {row.split("│")[1].strip(): row.split("│")[2].strip() for row in _rows(result.stderr)}
    assert told["groups"] == "3"
    assert told["labelled"] == "2"
    assert told["abstained"] == "1 no_answer 1"
    assert told["label accuracy"] == "50.0% (1 of 2)"
    assert told["reward accuracy"] == "100.0% (9 of 9)"
    assert told["bad lines"] == "0"
    assert [vote["id"] for vote in votes(result)] == ["half", 7, 3]
    assert votes(result)[2] == {
        "id": 3,
        "label": None,
        "majority_ratio": 0.0,
        "rewards": [None],
        "answers": [None],
        "label_correct": False,
        "reason": "no_answer",
    }


def _rows(text: str) -> Sequence[str]:
    return [row for row in text.splitlines() if row.count("│") == 3]


BAD = ("{", "[]", '{"id": 1}', '{"responses": "x"}', '{"responses": [1]}', "\\", "[" * 2000)
MORE_BAD = ('{"responses": ["x"], "is_ground_truth": [1, 0]}', '{"responses": [{"a": 1}]}')


@pytest.mark.parametrize("bad", [*BAD, *MORE_BAD])
def test_a_bad_line_is_named_and_left_out(bad: str) -> None:
    result = run("-", stdin="\n" + lines(GROUP) + bad + "\n" + lines(GROUP))
    assert result.exit_code == 0
    assert "line 3: " in result.stderr
    assert len(votes(result)) == 2


@pytest.mark.parametrize("name", ["canonical", "extract"])
def test_a_group_that_a_defect_meets_is_unjudged_and_the_others_are_voted_on(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: Literal["canonical", "extract"],
) -> None:
    break_on(monkeypatch, name, "666")
    odd = {"responses": ["666", "1"], "ground_truth": "1", "is_ground_truth": [0, 1]}
    result = run("-", "--answer", "text", stdin=lines(odd, {"responses": ["1", "1"]}))
    assert result.exit_code == 0
    one, other = votes(result)
    assert (one["id"], one["label"], one["reason"]) == (1, None, "unjudged")
    assert one["rewards"] == one["answers"] == [None, None]
    assert other["label"] == "1"
    assert "line 1: answers not compared" in caplog.text


def test_strict_stops_at_the_first_bad_line() -> None:
    result = run("-", "--strict", stdin=lines(GROUP) + "{\n" + lines(GROUP))
    assert result.exit_code == 1
    assert "line 2: " in result.stderr
    assert len(votes(result)) == 1


def test_no_group_at_all_is_a_failure() -> None:
    assert run("-", stdin="\n\n").exit_code == 1
    assert run("-", stdin="{\n").exit_code == 1


def test_files_in_and_out(tmp_path: Path) -> None:
    source, target = tmp_path / "groups.jsonl", tmp_path / "votes.jsonl"
    source.write_text(lines(GROUP))
    result = run(str(source), "--output", str(target))
    assert result.stdout == ""
    assert json.loads(target.read_text())["label"] == "1/2"


@pytest.mark.parametrize("name", ["groups.jsonl", "link.jsonl"])
def test_the_input_is_not_overwritten(tmp_path: Path, name: str) -> None:
    source = tmp_path / "groups.jsonl"
    source.write_text(lines(GROUP))
    (tmp_path / "link.jsonl").symlink_to(source)
    result = run(str(source), "--output", str(tmp_path / name))
    assert isinstance(result.exception, ConfigurationError)
    assert "is the input too" in result.exception.message
    assert source.read_text() == lines(GROUP)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-", "--answer", "python", "--entry-point", "unheard-of"],
        ["no/such/file.jsonl"],
    ],
)
def test_an_old_result_survives_what_cannot_run(tmp_path: Path, arguments: list[str]) -> None:
    target = tmp_path / "votes.jsonl"
    target.write_text("old")
    result = run(*arguments, "--output", str(target), stdin=lines(GROUP))
    assert isinstance(result.exception, ConfigurationError)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_old_result_is_replaced_when_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, link = tmp_path / "votes.jsonl", tmp_path / "link.jsonl"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    with monkeypatch.context() as patch:
        patch.setattr(command, "vote_on", _broken)
        assert isinstance(
            run("-", "--output", str(link), stdin=lines(GROUP)).exception, FloatingPointError
        )
    assert target.read_text() == "old"
    assert run("-", "--output", str(link), stdin=lines(GROUP)).exit_code == 0
    assert json.loads(target.read_text())["label"] == "1/2"
    assert target.stat().st_mode & 0o777 == 0o600
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [link, target]


def _broken(*_: object, **__: object) -> Iterator[Judged]:
    raise FloatingPointError


def test_a_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)  # or opening it would wait for one
    assert run("-", "--output", str(pipe), stdin=lines(GROUP)).exit_code == 0
    assert json.loads(os.read(reader, 2**16))["label"] == "1/2"
    os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("arguments", "responses", "truth", "label"),
    [
        (["--answer", "choice"], ["Answer: C", "It is (C)", "Answer: a dog"], "c", "C"),
        (["--answer", "number"], ["A: 18", "The answer is 18.", "A: 3"], 18, "18"),
        (
            ["--answer", "label", "--label", "yes", "--label", "no"],
            ["Yes!", "so, yes", "No"],
            "YES",
            "yes",
        ),
        (
            ["--answer", "json", "--field", "a"],
            ['{"a": 1}', '{"a": 1.0}', '{"a": 2}'],
            1,
            "1",
        ),
        (
            ["--answer", "json"],
            ['{"a": {"x": 1, "b": 2}}'],
            {"a": {"b": 2, "x": 1}},
            '{"a":{"b":2,"x":1}}',
        ),
        (["--answer", "regex", "--pattern", r"id (\w+)"], ["id ab", "id AB", "id c"], "ab", "ab"),
        (["--answer", "text"], ["Oslo", "The answer is Oslo.", "Rome"], "oslo", "oslo"),
        ([], ["Answer: 2x+1", r"\boxed{1+2x}", r"\boxed{x}"], "We get 5.\n#### 2x + 1", "1+2x"),
    ],
)
def test_every_kind_of_answer(
    arguments: list[str], responses: list[str], truth: object, label: str
) -> None:
    group = {"responses": responses, "ground_truth": truth}
    (vote,) = votes(run("-", *arguments, stdin=lines(group)))
    assert vote["label"] == label
    assert vote["label_correct"] is True


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["-", "--answer", "label"], "needs labels"),
        (["-", "--answer", "regex", "--pattern", "(?=a)"], "look-ahead"),
        (["-", "--answer", "python", "--entry-point", "unheard-of"], "unheard-of"),
        (["no/such/file.jsonl"], "no/such/file.jsonl"),
        (["-", "--output", "no/such/file.jsonl"], "no/such/file.jsonl"),
    ],
)
def test_what_cannot_run_is_one_clear_error(arguments: list[str], problem: str) -> None:
    result = run(*arguments, stdin="")
    assert result.exit_code == 1
    assert problem in str(result.exception)


@pytest.mark.parametrize("arguments", [["--answer", "poem"], ["--estimator", "oracle"]])
def test_what_is_unheard_of_is_refused(arguments: list[str]) -> None:
    assert run("-", *arguments, stdin="").exit_code == 2


def test_only_a_few_groups_are_read_ahead(judge: Equivalence) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield lines({"responses": ["A: 1"]}).encode()

    outcomes = vote_on(endless(), VoteRules(AnswerSpec("auto")), judge, threads=2)
    for _ in range(100):
        next(outcomes)
    outcomes.close()  # pyright: ignore[reportAttributeAccessIssue] a generator
    assert read <= 100 + 2 * READ_AHEAD


def test_votes_come_in_the_order_of_the_groups(judge: Equivalence) -> None:
    groups = [lines({"id": n, "responses": [f"A: {n}"]}).encode() for n in range(200)]
    outcomes = list(vote_on(groups, VoteRules(AnswerSpec("number")), judge, threads=4))
    assert [o.voted.label for o in outcomes if isinstance(o, Judged)] == [
        str(n) for n in range(200)
    ]


def test_a_line_that_is_too_long_is_bad_and_the_next_one_good(judge: Equivalence) -> None:
    long = lines({"responses": ["x" * 2000]}) + lines({"responses": ["A: 1"]})
    read = list(lines_of(io.BytesIO(long.encode()), longest=100))
    assert [len(line) <= 100 for line in read] == [True, True]
    first, second = vote_on(read, VoteRules(AnswerSpec("auto")), judge, threads=1)
    assert isinstance(first, BadLine)
    assert isinstance(second, Judged)


def test_a_known_share_of_the_published_labels(shared_data: Path) -> None:
    result = run(str(shared_data / "answer_groups.jsonl"))
    told = votes(result)
    text = (shared_data / "answer_groups.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert sum(vote["label_correct"] for vote in told) / len(told) >= 0.99
    right = [
        bool(reward) == bool(truth)
        for vote, row in zip(told, rows, strict=True)
        for reward, truth in zip(vote["rewards"], row["is_ground_truth"], strict=True)
    ]
    assert sum(right) / len(right) >= 0.99
