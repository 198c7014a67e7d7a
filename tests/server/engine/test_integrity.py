"""A published version's files are looked at before an engine loads them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.store import AdapterStore
from server.engine.identity import model_digest
from server.engine.integrity import verifier
from server.errors import AdapterDamaged
from server.tenants import VersionRef
from tests.adapters.lora import ALPHA, RANK, write_adapter

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "adapters")


def publish(
    store: AdapterStore, number: int, source: Path, *, base_digest: str = "0" * 64
) -> VersionRef:
    manifest = store.publish(
        write_adapter(source),
        tenant_id=1,
        number=number,
        engine_name=f"t1-a--v{number}",
        parent=number - 1,
        cycle_id=None,
        base_digest=base_digest,
        rank=RANK,
        alpha=ALPHA,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    path = str(store.version_dir(1, number))
    return VersionRef(number, manifest.engine_name, path, f"a--v{number}")


async def test_what_was_published_passes(store: AdapterStore, tmp_path: Path) -> None:
    await verifier(store)(publish(store, 1, tmp_path / "source"))


def gone(directory: Path) -> str:
    shutil.rmtree(directory)
    return "no such directory"


def torn(directory: Path) -> str:
    os.truncate(directory / WEIGHTS, 100)
    return "100 bytes, not"


def changed(directory: Path) -> str:
    content = bytearray((directory / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (directory / WEIGHTS).write_bytes(content)
    return "SHA-256 differs"


def linked(directory: Path) -> str:
    directory.rename(directory.with_name("moved"))
    directory.symlink_to(directory.with_name("moved"))
    return "a symbolic link"


@pytest.mark.parametrize("damage", [gone, torn, changed, linked])
async def test_what_was_damaged_since_is_refused(
    store: AdapterStore, tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    version = publish(store, 1, tmp_path / "source")
    reason = damage(Path(version.path))
    with pytest.raises(AdapterDamaged) as refused:
        await verifier(store)(version)
    assert "a--v1" in refused.value.message
    assert reason in refused.value.message
    assert str(tmp_path) not in refused.value.message


async def test_another_versions_directory_is_refused(store: AdapterStore, tmp_path: Path) -> None:
    first = publish(store, 1, tmp_path / "source-1")
    second = publish(store, 2, tmp_path / "source-2")
    with pytest.raises(AdapterDamaged, match="another version"):
        await verifier(store)(replace(second, path=first.path))


def model(folder: Path, weights: bytes) -> str:
    """A base model's directory with so many files that it has a digest."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return model_digest(str(folder))


async def test_a_version_of_another_base_model_is_refused(
    store: AdapterStore, tmp_path: Path
) -> None:
    one, other = model(tmp_path / "one", b"one"), model(tmp_path / "other", b"other")
    version = publish(store, 1, tmp_path / "source", base_digest=one)
    with pytest.raises(AdapterDamaged) as refused:
        await verifier(store, other)(version)
    assert refused.value.status_code == 409
    assert refused.value.message == "a--v1 was made for another base model than this server's"
    await verifier(store, one)(version)
    await verifier(store, model(tmp_path / "moved", b"one"))(version)  # a path is only a name


async def test_a_version_of_another_hub_id_is_refused(store: AdapterStore, tmp_path: Path) -> None:
    version = publish(store, 1, tmp_path / "source", base_digest=model_digest("org/model"))
    await verifier(store, model_digest("org/model"))(version)
    with pytest.raises(AdapterDamaged, match="another base model"):
        await verifier(store, model_digest("org/other"))(version)


async def test_what_cannot_be_compared_is_loaded_with_a_warning(
    store: AdapterStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, hub = model(tmp_path / "model", b"one"), model_digest("org/model")
    first = publish(store, 1, tmp_path / "source-1", base_digest=hub)
    second = publish(store, 2, tmp_path / "source-2", base_digest=files)
    unmarked = publish(store, 3, tmp_path / "source-3", base_digest="0" * 64)
    for version, base in ((first, files), (second, hub), (unmarked, files), (unmarked, hub)):
        caplog.clear()
        await verifier(store, base)(version)
        assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("name", ["model", "org/model"])
async def test_a_digest_of_an_older_server_is_compared_without_its_mark(
    store: AdapterStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "model", b"one")
    marked = model_digest(name)
    bare = marked.partition(":")[2]
    assert len(bare) == 64
    await verifier(store, marked)(publish(store, 1, tmp_path / "source", base_digest=bare))
    assert not caplog.records
