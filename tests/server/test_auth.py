from __future__ import annotations

import multiprocessing
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from server.auth import Keys, new_secret, shown_prefix
from server.config import Settings
from server.errors import ConfigurationError


def settings(data_dir: Path, **values: Any) -> Settings:
    return Settings(data_dir=data_dir, **values)


def load_at_once(data_dir: Path, barrier: Any, results: Any) -> None:
    barrier.wait()
    keys = Keys.load(settings(data_dir))
    results.put((keys.admin_key, keys.pepper))


def test_the_first_start_makes_private_files_and_the_second_reads_them(tmp_path: Path):
    data_dir = tmp_path / "var"

    first = Keys.load(settings(data_dir))
    second = Keys.load(settings(data_dir))

    assert first == second
    assert (data_dir / "admin.key").read_text().strip() == first.admin_key
    files = sorted(data_dir.iterdir())
    assert [file.name for file in files] == ["admin.key", "pepper.key"]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]


def test_files_are_private_whatever_the_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        Keys.load(settings(tmp_path))
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "admin.key").stat().st_mode) == 0o600


def test_processes_that_start_at_once_agree(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=load_at_once, args=(tmp_path, barrier, results)) for _ in range(4)
    ]
    for process in processes:
        process.start()

    seen = {results.get(timeout=120) for _ in processes}

    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    results.close()
    results.join_thread()
    assert len(seen) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["admin.key", "pepper.key"]


def test_settings_win_and_make_no_file(tmp_path: Path):
    keys = Keys.load(settings(tmp_path, admin_key=SecretStr("adm"), key_pepper=SecretStr("pepper")))

    assert (keys.admin_key, keys.pepper) == ("adm", b"pepper")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o660, 0o620])
@pytest.mark.parametrize("name", ["admin.key", "pepper.key"])
def test_a_file_that_others_can_touch_is_refused(tmp_path: Path, name: str, mode: int):
    Keys.load(settings(tmp_path))
    (tmp_path / name).chmod(mode)

    with pytest.raises(ConfigurationError, match=f"{name}.*{mode:04o}.*chmod 600"):
        Keys.load(settings(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b" \n", "empty"), (b"\xff\xfe", "not text")]
)
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes, message: str):
    Keys.load(settings(tmp_path))
    (tmp_path / "admin.key").write_bytes(content)

    with pytest.raises(ConfigurationError, match=message):
        Keys.load(settings(tmp_path))


def test_a_directory_in_place_of_the_file_is_refused(tmp_path: Path):
    (tmp_path / "admin.key").mkdir(mode=0o700)

    with pytest.raises(ConfigurationError, match="admin.key"):
        Keys.load(settings(tmp_path))


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="admin.key"):
        Keys.load(settings(tmp_path / "file"))


@pytest.mark.parametrize(
    "values",
    [
        {"admin_key": SecretStr("")},
        {"admin_key": SecretStr("  ")},
        {"admin_key": SecretStr("two words")},
        {"admin_key": SecretStr("schlüssel")},
        {"admin_key": SecretStr("a\nb")},
        {"key_pepper": SecretStr("")},
    ],
)
def test_a_secret_that_cannot_be_one_is_refused(tmp_path: Path, values: Mapping[str, SecretStr]):
    with pytest.raises(ConfigurationError):
        Keys.load(settings(tmp_path, **values))


def test_secrets_are_long_different_and_told_apart_by_their_prefix():
    secrets = {new_secret() for _ in range(100)}

    assert len(secrets) == 100
    for secret in secrets:
        assert secret.startswith("sk-ttrl-")
        assert len(secret.removeprefix("sk-ttrl-")) * 6 >= 192  # bits, six a character
        assert len(shown_prefix(secret)) == 12


def test_the_digest_depends_on_the_key_and_on_the_pepper(tmp_path: Path):
    one = Keys("adm", b"one")
    two = Keys("adm", b"two")

    digests = {one.digest("a"), one.digest("b"), two.digest("a")}

    assert len(digests) == 3
    assert all(len(digest) == 64 for digest in digests)
    assert one.digest("a") == one.digest("a")


@pytest.mark.parametrize(
    "presented", ["", "adm", "adminn", "ADMIN", "admin ", "schlüssel", "\udcff"]
)
def test_only_the_admin_key_is_the_admin_key(presented: str):
    keys = Keys("admin", b"pepper")

    assert not keys.is_admin(presented)
    assert keys.is_admin("admin")


def test_keys_do_not_show_themselves():
    shown = repr(Keys("top-secret", b"pepper-secret"))

    assert "secret" not in shown
