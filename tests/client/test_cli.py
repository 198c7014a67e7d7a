from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import httpx
import pytest
from ttrl_client import types
from ttrl_client.cli import app
from typer.testing import CliRunner

from tests.client.conftest import BridgeTransport

REPORT = {
    "version": "v0",
    "num_prompts": 10,
    "num_samples": 240,
    "label_agreement": 0.5,
    "view_agreement": 0.21,
    "majority_ratio": 0.6,
    "answer_rate": 1.0,
    "mean_tokens": 40.5,
    "flip_rate": 0.0,
    "kl": None,
}


class Result(Protocol):
    """What a command did."""

    @property
    def exit_code(self) -> int: ...
    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...
    @property
    def output(self) -> str: ...


class Run(Protocol):
    """Runs the command in front of the real app, with the admin key."""

    def __call__(self, *args: str, input: str | None = None) -> Result: ...


@pytest.fixture(autouse=True)
def plain_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, no settings, and a pipe that is wide enough."""
    for name in ("TTRL_URL", "TTRL_ADMIN_KEY", "TTRL_DATA_DIR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    return empty


@pytest.fixture
def run(bridge: BridgeTransport) -> Run:
    def invoke(*args: str, input: str | None = None) -> Result:
        env = {"TTRL_ADMIN_KEY": bridge.world.keys.admin_key}
        return CliRunner().invoke(app, args, obj=bridge, env=env, input=input)

    return invoke


def test_status_shows_the_engines(run: Run):
    shown = run("status")

    assert shown.exit_code == 0
    assert "http://engine" in shown.stdout
    assert "ready" in shown.stdout


def test_a_new_tenants_key_is_printed_whole_and_once(run: Run, bridge: BridgeTransport):
    made = run("tenants", "create", "adder")

    [secret] = [word for word in made.stdout.split() if word.startswith("sk-ttrl-")]
    assert bridge.run(bridge.world.directory.caller(secret)).tenant == "adder"
    assert secret not in run("keys", "list", "adder").stdout


def test_settings_come_from_a_file(run: Run, tmp_path: Path):
    file = tmp_path / "settings.json"
    file.write_text('{"answer": "math", "learning": {"steps": 3}}')

    run("tenants", "create", "adder", "--settings", str(file))

    shown = run("tenants", "show", "adder")
    assert '"steps": 3' in shown.stdout
    assert '"math"' in shown.stdout


def test_settings_come_from_standard_input(run: Run):
    run("tenants", "create", "adder")

    updated = run(
        "tenants", "update", "adder", "--settings", "-", "--json", input='{"answer": "number"}'
    )

    assert json.loads(updated.stdout)["settings"]["answer"] == "number"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "JSON"),
        (b'{"learning": {"steps": 0}}', "learning.steps"),
        (b'{"unknown": 1}', "unknown"),
        (b"\xff", "UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_bad_settings_file_is_wrong_usage(
    run: Run, tmp_path: Path, content: bytes | None, message: str
):
    file = tmp_path / "s.json"
    if content is not None:
        file.write_bytes(content)

    refused = run("tenants", "create", "adder", "--settings", str(file))

    assert refused.exit_code == 2
    assert message in " ".join(refused.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["tenants", "show", "nobody"], 3, "no tenant 'nobody'"),
        (["rollback", "adder"], 4, "no version to go back to"),
        (["promote", "adder", "7"], 3, "no version 7"),
        (["tenants", "create", "adder"], 4, "adder"),
        (["tenants", "create", "Upper"], 2, "not a tenant name"),
        (["keys", "create", "adder", "--name", ""], 2, "name"),
        (["promote", "adder", "-1"], 2, ""),
        (["adapt", "adder", "--seed", "-1"], 2, ""),
        (["versions"], 2, "TENANT"),
        (["unheard-of"], 2, "unheard-of"),
        (["cycle", "adder"], 2, "no cycle yet"),
        (["tenants", "delete", "adder"], 2, "--yes"),
        (["tenants", "list", "--before", "x"], 2, "before"),
    ],
)
def test_exit_codes_say_what_went_wrong(run: Run, args: list[str], code: int, message: str):
    run("tenants", "create", "adder")

    failed = run(*args)

    assert failed.exit_code == code
    assert message in failed.stderr
    assert "Traceback" not in failed.output


def test_a_server_that_is_away_is_five():
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    failed = CliRunner().invoke(
        app,
        ["--url", "http://nowhere:1", "tenants", "create", "a"],
        obj=httpx.MockTransport(refuse),
        env={"TTRL_ADMIN_KEY": "k"},
    )

    assert failed.exit_code == 5
    assert "http://nowhere:1 does not answer" in failed.stderr


def test_engines_that_are_away_are_five(run: Run, bridge: BridgeTransport):
    made = json.loads(run("tenants", "create", "adder", "--json").stdout)
    bridge.run(bridge.world.publish(made["id"], 1))
    bridge.world.loader.is_away = True

    assert run("promote", "adder", "1").exit_code == 5


def test_a_wrong_key_is_one(bridge: BridgeTransport):
    failed = CliRunner().invoke(app, ["--admin-key", "wrong", "status"], obj=bridge)

    assert failed.exit_code == 1
    assert "not the server's admin key" in failed.stderr


def test_without_a_key_the_command_says_where_it_looks(bridge: BridgeTransport):
    failed = CliRunner().invoke(app, ["status"], obj=bridge)

    assert failed.exit_code == 1
    assert "TTRL_ADMIN_KEY" in failed.stderr
    assert "./var" in failed.stderr


@pytest.mark.parametrize("from_variable", [True, False])
def test_the_local_servers_key_is_found(
    bridge: BridgeTransport,
    plain_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    from_variable: bool,
):
    data_dir = plain_environment / ("elsewhere" if from_variable else "var")
    data_dir.mkdir()
    (data_dir / "admin.key").write_text(bridge.world.keys.admin_key + "\n")
    if from_variable:
        monkeypatch.setenv("TTRL_DATA_DIR", str(data_dir))

    assert CliRunner().invoke(app, ["status"], obj=bridge).exit_code == 0


def test_lists_are_readable_and_complete(run: Run, bridge: BridgeTransport):
    made = json.loads(run("tenants", "create", "adder", "--json").stdout)
    bridge.run(bridge.world.publish(made["id"], 1))
    bridge.run(bridge.world.log_query(made["id"], "q1", eligible=False, reason="opted_out"))
    run("promote", "adder", "1")
    run("adapt", "adder")

    assert "v1" in run("tenants", "list").stdout
    assert "live" in run("versions", "adder").stdout
    assert "promoted_by_hand" in run("swaps", "adder").stdout
    assert "pending" in run("cycles", "adder").stdout
    assert "adder" in run("cycles").stdout
    queries = run("queries", "adder").stdout
    assert "question q1" in queries
    assert "opted_out" in queries


def test_a_rollback_says_what_moved(run: Run, bridge: BridgeTransport):
    made = json.loads(run("tenants", "create", "adder", "--json").stdout)
    bridge.run(bridge.world.publish(made["id"], 1))
    run("promote", "adder", "1")

    assert "v1 -> v0" in run("rollback", "adder").stdout


def test_a_rollback_can_name_its_target(run: Run, bridge: BridgeTransport):
    made = json.loads(run("tenants", "create", "adder", "--json").stdout)
    bridge.run(bridge.world.publish(made["id"], 1))
    bridge.run(bridge.world.publish(made["id"], 2, parent=1))
    run("promote", "adder", "2")

    assert "v2 -> v1" in run("rollback", "adder", "--to", "1").stdout


def test_text_from_clients_cannot_steer_the_terminal(run: Run, bridge: BridgeTransport):
    made = json.loads(run("tenants", "create", "adder", "--json").stdout)
    prompt = [{"role": "user", "content": "\x1b[2Jgone [red]markup[/red] [/]"}]
    bridge.run(bridge.world.log_query(made["id"], "q1", prompt=prompt))

    shown = run("queries", "adder")

    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert "[red]markup[/red] [/]" in shown.stdout


@pytest.mark.parametrize(
    "args",
    [
        ["status"],
        ["tenants", "create", "other"],
        ["tenants", "list"],
        ["tenants", "show", "adder"],
        ["tenants", "delete", "adder", "--yes"],
        ["keys", "create", "adder"],
        ["keys", "list", "adder"],
        ["keys", "revoke", "adder", "1"],
        ["adapt", "other2"],
        ["cycles"],
        ["cycles", "adder"],
        ["cycle", "adder"],
        ["cancel", "adder"],
        ["versions", "adder"],
        ["promote", "adder", "1"],
        ["rollback", "adder", "--to", "1"],
        ["swaps", "adder"],
        ["queries", "adder"],
    ],
)
def test_every_command_speaks_json(run: Run, bridge: BridgeTransport, args: list[str]):
    made = json.loads(run("tenants", "create", "adder", "--json").stdout)
    bridge.run(bridge.world.publish(made["id"], 1))
    run("tenants", "create", "other2")
    run("adapt", "adder")

    shown = run(*args, "--json")

    assert shown.exit_code == 0, shown.output
    assert isinstance(json.loads(shown.stdout), dict)


def watched(run: Run, bridge: BridgeTransport, status: str, *args: str) -> Result:
    """`ttrl adapt --watch` over a cycle that does two steps and ends with this status."""
    run("tenants", "create", "adder")
    cycle_id = 1
    world = bridge.world
    bridge.scripted.script = [
        lambda world: world.set_cycle(cycle_id, status="running", phase="select"),
        lambda world: world.set_cycle(cycle_id, phase="train"),
        lambda world: world.add_step(cycle_id, 1, majority_ratio=0.5, mean_reward=0.4, loss=0.1),
        lambda world: world.add_step(cycle_id, 2, majority_ratio=0.75, mean_reward=0.6, loss=0.05),
        lambda world: world.set_cycle(cycle_id, phase="evaluate"),
        lambda world: world.set_cycle(
            cycle_id,
            status=status,
            phase=None,
            decision=status if status in ("promoted", "rejected") else None,
            reasons=["view_agreement: 0.21 < 0.70"] if status == "rejected" else [],
            selection={"counts": {"train": 12, "duplicate": 3}},
            error="trainer_failed: out of memory" if status == "failed" else None,
            candidate_version=1 if status == "promoted" else None,
            incumbent_report=REPORT,
            candidate_report=REPORT | {"label_agreement": 0.875},
        ),
    ]
    assert world is bridge.scripted.world
    return run("adapt", "adder", "--watch", "--poll", "0", *args)


def test_watching_without_a_terminal_prints_a_line_for_each_change(
    run: Run, bridge: BridgeTransport
):
    shown = watched(run, bridge, "promoted")

    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[:6] == [
        "0/20 select",
        "0/20 train",
        "1/20 train majority 0.500  reward 0.400  loss 0.100",
        "2/20 train majority 0.750  reward 0.600  loss 0.050",
        "2/20 evaluate majority 0.750  reward 0.600  loss 0.050",
        "2/20 promoted majority 0.750  reward 0.600  loss 0.050",
    ]
    assert "promoted, v1" in lines[6]
    [row] = [line.split() for line in lines if line.startswith("label_agreement")]
    assert row == ["label_agreement", "0.500", "0.875"]


def test_watching_shows_why_the_gate_refused(run: Run, bridge: BridgeTransport):
    shown = watched(run, bridge, "rejected")

    assert shown.exit_code == 0
    assert "view_agreement: 0.21 < 0.70" in shown.stdout
    assert "prompts: 3 duplicate, 12 train" in shown.stdout


def test_watching_a_cycle_that_fails_is_a_failure(run: Run, bridge: BridgeTransport):
    shown = watched(run, bridge, "failed")

    assert shown.exit_code == 1
    assert "out of memory" in shown.stdout


def test_watching_as_json_prints_one_cycle_a_line(run: Run, bridge: BridgeTransport):
    shown = watched(run, bridge, "promoted", "--json")

    states = [types.Cycle.model_validate_json(line) for line in shown.stdout.splitlines()]
    assert [state.steps_done for state in states] == [0, 0, 1, 2, 2, 2]
    assert states[-1].status == "promoted"


def test_watching_in_a_terminal_draws_a_bar(
    run: Run, bridge: BridgeTransport, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")

    shown = watched(run, bridge, "promoted")

    assert shown.exit_code == 0
    assert "2/20" in shown.stdout
    assert "majority 0.750" in shown.stdout
    assert "━" in shown.stdout


def test_a_cycle_can_be_watched_later_and_cancelled(run: Run, bridge: BridgeTransport):
    run("tenants", "create", "adder")
    run("adapt", "adder")

    assert "cancelled" in run("cancel", "adder").stdout
    assert run("cycle", "adder", "--watch", "--poll", "0").exit_code == 1
    assert run("cancel", "adder").exit_code == 4


def test_deleting_asks_unless_told_not_to(run: Run):
    run("tenants", "create", "adder")

    assert run("tenants", "delete", "adder", "--yes").exit_code == 0
    assert run("tenants", "show", "adder").exit_code == 3
