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
from server.engine.integrity import verifier
from server.errors import AdapterDamaged
from server.tenants import VersionRef
from tests.adapters.lora import ALPHA, RANK, write_adapter

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "adapters")


def publish(store: AdapterStore, number: int, source: Path) -> VersionRef:
    manifest = store.publish(
        write_adapter(source),
        tenant_id=1,
        number=number,
        engine_name=f"t1-a--v{number}",
        parent=number - 1,
        cycle_id=None,
        base_digest="0" * 64,
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
