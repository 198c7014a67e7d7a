"""What is wrong at the start is said in one clear line with exit code 2, and nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.config import Settings
from server.db.engine import Database
from server.db.migrate import upgrade
from server.engine.identity import FILES, identity_dir

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "demo" / "model"
SERVER = Path(sys.executable).with_name("ttrl-server")
TIMEOUT_S = 120  # of a start that should fail in a second or two


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended, and whether anything of its session outlived it."""

    status: int
    errors: str
    left: list[int]


def started(command: str, data_dir: Path, **settings: object) -> Ended:
    """Run `ttrl-server <command>` with these settings only, until it ends."""
    chosen = {"model": MODEL, "data_dir": data_dir, **settings}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("TTRL_")}
    process = subprocess.Popen(
        [SERVER, command],
        cwd=data_dir.parent,
        env=outside | {f"TTRL_{name.upper()}": str(value) for name, value in chosen.items()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=TIMEOUT_S)
        left = members(process.pid)
    finally:
        process.kill()
        for pid in members(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert output == ""
    return Ended(process.returncode, errors, left)


def members(session: int) -> list[int]:
    """The living processes of a session."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, leader = stat.read_text().rpartition(")")[2].split()[:4]
            if int(leader) == session and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


def expect(ended: Ended, *words: str) -> None:
    """One line on standard error that holds the words, exit code 2, and nothing left running."""
    assert ended.status == 2, ended.errors
    assert ended.left == []
    [line] = ended.errors.splitlines()
    assert line.startswith("ttrl-server: ")
    for word in words:
        assert word in line


def without_folder(model: Path) -> str:
    shutil.rmtree(model)
    return str(model)


def torn_config(model: Path) -> str:
    (model / "config.json").write_text('{"model_type": "qwen2", "archi')
    return "config.json is not valid JSON"


def without_config(model: Path) -> str:
    (model / "config.json").unlink()
    return "config.json is missing"


def without_tokenizer(model: Path) -> str:
    (model / "tokenizer.json").unlink()
    return "holds no tokenizer"


def without_weights(model: Path) -> str:
    (model / "model.safetensors").unlink()
    return "holds no weights"


def without_shard(model: Path) -> str:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    return "model-00002-of-00002.safetensors is missing"


def torn_weights(model: Path) -> str:
    weights = model / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    return "the copy is not complete"


DAMAGE: list[Callable[[Path], str]] = [
    without_folder,
    torn_config,
    without_config,
    without_tokenizer,
    without_weights,
    without_shard,
    torn_weights,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_model_that_is_not_whole(damage: Callable[[Path], str], tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    said = damage(model)
    expect(started("serve", tmp_path / "data", model=model), str(model), said)


def test_a_worker_looks_at_the_model_too(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    said = torn_weights(model)
    expect(started("worker", tmp_path / "data", model=model), said)


@pytest.mark.postgres
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_postgresql_without_the_schema(command: str, tmp_path: Path, postgres_url: str) -> None:
    ended = started(command, tmp_path / "data", database_url=postgres_url)
    expect(ended, "revision none", "Run `ttrl-server migrate`")


@pytest.mark.postgres
def test_migrate_is_what_it_needed(tmp_path: Path, postgres_url: str) -> None:
    ended = started("migrate", tmp_path / "data", database_url=postgres_url)
    assert (ended.status, ended.errors, ended.left) == (0, "", [])
    with closing(listener()) as taken:  # the next thing to be refused
        port = taken.getsockname()[1]
        ended = started("serve", tmp_path / "data", database_url=postgres_url, port=port)
    expect(ended, "cannot be bound")


def test_a_worker_on_an_empty_sqlite(tmp_path: Path) -> None:
    expect(started("worker", tmp_path / "data"), "revision none", "Run `ttrl-server migrate`")


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
async def test_a_database_of_a_newer_program(command: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    database = Database(f"sqlite+aiosqlite:///{data / 'ttrl.db'}")
    await upgrade(database)
    await database.close()
    with closing(sqlite3.connect(data / "ttrl.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    expect(started(command, data), "9999", "a newer one")


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_a_database_that_does_not_answer(command: str, tmp_path: Path) -> None:
    url = f"postgresql+asyncpg://ttrl:secret@/ttrl?host={tmp_path / 'nowhere'}"
    ended = started(command, tmp_path / "data", database_url=url, database_wait_s=0)
    expect(ended, "postgresql+asyncpg://", "TTRL_DATABASE_URL")
    assert "secret" not in ended.errors


def test_a_database_that_does_not_come_in_time(tmp_path: Path) -> None:
    url = f"postgresql+asyncpg://ttrl:secret@/ttrl?host={tmp_path / 'nowhere'}"
    data = tmp_path / "data"
    identity = identity_dir(Settings(data_dir=data, model=str(MODEL)))
    identity.mkdir(parents=True)
    for name in FILES:  # so that no trainer is started to make them
        (identity / name).touch()
    engine = {"engine_urls": "http://127.0.0.1:9", "worker": False}
    ended = started("serve", data, database_url=url, database_wait_s=1, port=0, **engine)
    assert ended.status == 2, ended.errors
    assert ended.left == []
    lines = ended.errors.splitlines()
    assert any("Starting without it" in line for line in lines)
    assert lines[-1].startswith("ttrl-server: ")
    assert "secret" not in ended.errors


@pytest.mark.postgres
def test_a_database_that_is_not_there(tmp_path: Path, postgres_url: str) -> None:
    url = postgres_url.replace("@/t", "@/no")
    ended = started("serve", tmp_path / "data", database_url=url)
    expect(ended, "does not exist", "TTRL_DATABASE_URL")


@pytest.mark.parametrize("url", ["ttrl.db", "mysql://localhost/ttrl", "sqlite:///ttrl.db"])
def test_a_database_url_of_another_kind(url: str, tmp_path: Path) -> None:
    expect(started("serve", tmp_path / "data", database_url=url), "TTRL_DATABASE_URL")


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", "99999"), ("port", "http"), ("log_level", "loud"), ("engine_max_loras", "1")],
)
def test_a_bad_setting(name: str, value: str, tmp_path: Path) -> None:
    expect(started("serve", tmp_path / "data", **{name: value}), f"TTRL_{name.upper()}: ")


def test_a_data_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    expect(started("serve", tmp_path / "data"), "TTRL_DATA_DIR", "File exists")


@pytest.mark.parametrize("name", ["admin.key", "pepper.key"])
def test_a_key_that_others_can_read(name: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / name).write_text("a secret\n")
    (data / name).chmod(0o640)
    ended = started("serve", data)
    expect(ended, str(data / name), "mode 0640", "chmod 600")
    assert "a secret" not in ended.errors


def test_a_port_in_use(tmp_path: Path) -> None:
    with closing(listener()) as taken:
        port = taken.getsockname()[1]
        ended = started("serve", tmp_path / "data", port=port)
    expect(ended, f"127.0.0.1:{port} cannot be bound", "TTRL_PORT")
    assert not (tmp_path / "data" / "logs").exists(), "an engine was started before that"


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    ended = started("serve", tmp_path / "data", host="192.0.2.1", port=0)  # for documentation only
    expect(ended, "192.0.2.1", "TTRL_HOST")


def listener() -> socket.socket:
    """A socket that listens on a free port of this machine."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken
