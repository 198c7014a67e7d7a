from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.manifest import Manifest, PoisonedAdapter
from adapters.store import AdapterStore, VersionExists
from tests.adapters.lora import ALPHA, RANK, pair, safetensors, write_adapter

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "manifest.json"


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "adapters")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "source")


def _publish(store: AdapterStore, source: Path, **changes: Any) -> Manifest:
    arguments: dict[str, Any] = {
        "tenant_id": 7,
        "number": 3,
        "engine_name": "t7-adder--v3",
        "parent": 2,
        "cycle_id": 11,
        "base_digest": "d" * 64,
        "rank": RANK,
        "alpha": ALPHA,
        "created_at": CREATED,
        **changes,
    }
    return store.publish(source, **arguments)


def _tree(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()
    }


def test_places_are_as_agreed(store: AdapterStore) -> None:
    assert store.version_dir(7, 3) == store.root / "t7" / "v3"
    dirs = store.step_dirs(7, 11, 2)
    assert dirs.adapter == store.root / "t7" / "c11" / "s2" / "adapter"
    assert dirs.state == store.root / "t7" / "c11" / "s2" / "state"
    with pytest.raises(ValueError, match="negative"):
        store.version_dir(-1, 3)


def test_a_published_version_can_be_verified(store: AdapterStore, source: Path) -> None:
    manifest = _publish(store, source)
    path = store.version_dir(7, 3)
    assert store.verify(path) == manifest
    assert store.verify(path, rank=RANK, alpha=ALPHA) == manifest
    assert sorted(os.listdir(path)) == sorted([CONFIG, WEIGHTS, MANIFEST])
    for name in (CONFIG, WEIGHTS):
        content = (path / name).read_bytes()
        assert content == (source / name).read_bytes()
        assert manifest.files[name].sha256 == hashlib.sha256(content).hexdigest()
        assert manifest.files[name].size == len(content)


def test_the_manifest_says_where_it_comes_from(store: AdapterStore, source: Path) -> None:
    manifest = _publish(store, source)
    content = (store.version_dir(7, 3) / MANIFEST).read_bytes()
    assert manifest.digest == hashlib.sha256(content).hexdigest()
    read = json.loads(content)
    assert (read["tenant_id"], read["number"], read["parent"], read["cycle_id"]) == (7, 3, 2, 11)
    assert read["created_at"] == "2026-01-02T03:04:05Z"
    assert read["schema_version"] == 1


def test_pefts_readme_is_left_behind(store: AdapterStore, source: Path) -> None:
    (source / "README.md").write_text("hello")
    _publish(store, source)
    assert not (store.version_dir(7, 3) / "README.md").exists()


def test_publishing_again_from_the_same_cycle_adopts_the_version(
    store: AdapterStore, source: Path
) -> None:
    first = _publish(store, source)
    before = _tree(store.root)
    again = _publish(store, source, created_at=datetime(2027, 1, 1, tzinfo=UTC))
    assert again == first
    assert _tree(store.root) == before


OTHERS = [
    {"cycle_id": 12},
    {"cycle_id": None},
    {"engine_name": "t7-other--v3"},
    {"base_digest": "e" * 64},
    {"parent": 1},
]


@pytest.mark.parametrize("changes", OTHERS, ids=[next(iter(changes)) for changes in OTHERS])
def test_another_version_is_not_touched(
    store: AdapterStore, source: Path, changes: dict[str, Any]
) -> None:
    _publish(store, source)
    before = _tree(store.root)
    with pytest.raises(VersionExists):
        _publish(store, source, **changes)
    assert _tree(store.root) == before


def test_other_weights_of_the_same_ids_are_not_adopted(
    store: AdapterStore, source: Path, tmp_path: Path
) -> None:
    """The database began anew, and its ids with it; the directories stayed."""
    _publish(store, source)
    before = _tree(store.root)
    other = write_adapter(tmp_path / "other", weights=safetensors(pair(dtype="F16")))
    with pytest.raises(VersionExists):
        _publish(store, other)
    assert _tree(store.root) == before


def test_what_stands_broken_in_the_place_is_not_adopted(store: AdapterStore, source: Path) -> None:
    _publish(store, source)
    (store.version_dir(7, 3) / WEIGHTS).write_bytes(b"broken")
    with pytest.raises(PoisonedAdapter, match="6 bytes") as caught:
        _publish(store, source)
    assert caught.value.path == str(store.version_dir(7, 3))


@pytest.mark.parametrize("bad", [{"weights": b"broken"}, {"config": {"r": 5}}])
def test_a_poisoned_source_leaves_nothing_behind(
    store: AdapterStore, tmp_path: Path, bad: dict[str, Any]
) -> None:
    with pytest.raises(PoisonedAdapter):
        _publish(store, write_adapter(tmp_path / "bad", **bad))
    assert _tree(store.root) == {}
    assert list((store.root / "t7").iterdir()) == []


@pytest.mark.parametrize("extra", ["pytorch_model.bin", "adapter_model.bin", ".hidden"])
def test_a_source_with_other_files_is_refused(
    store: AdapterStore, source: Path, extra: str
) -> None:
    (source / extra).write_bytes(b"x")
    with pytest.raises(PoisonedAdapter, match="unexpected"):
        _publish(store, source)


def test_a_source_that_is_a_link_or_holds_one_is_refused(
    store: AdapterStore, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(PoisonedAdapter, match="symbolic link"):
        _publish(store, tmp_path / "link")
    content = (source / WEIGHTS).rename(tmp_path / "elsewhere")
    (source / WEIGHTS).symlink_to(content)
    with pytest.raises(PoisonedAdapter, match="symbolic link"):
        _publish(store, source)


def test_a_source_that_is_missing_is_refused(store: AdapterStore, tmp_path: Path) -> None:
    with pytest.raises(PoisonedAdapter, match="no such directory"):
        _publish(store, tmp_path / "nowhere")


def test_a_tenants_directory_that_is_a_link_is_refused(
    store: AdapterStore, source: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    store.root.mkdir()
    (store.root / "t7").symlink_to(outside)
    with pytest.raises(PoisonedAdapter, match="symbolic link"):
        _publish(store, source)
    assert list(outside.iterdir()) == []


def test_what_a_crash_left_is_cleared_by_the_next_publication(
    store: AdapterStore, source: Path
) -> None:
    left = store.root / "t7" / ".v3.0123456789abcdef"
    write_adapter(left)
    other = write_adapter(store.root / "t7" / ".v30.0123456789abcdef")
    _publish(store, source)
    assert not left.exists()
    assert other.exists()


def test_a_version_appears_whole_or_not_at_all(
    store: AdapterStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise OSError(5, "disk on fire")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="disk on fire"):
        _publish(store, source)
    assert _tree(store.root) == {}


def test_the_loser_of_a_race_adopts_the_winners_version(
    store: AdapterStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner: list[Manifest] = []
    rename = Path.rename

    def overtaken(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        winner.append(_publish(store, source, created_at=datetime(2027, 1, 1, tzinfo=UTC)))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", overtaken)
    assert _publish(store, source) == winner[0]


@dataclass(frozen=True, slots=True)
class Poison:
    apply: Callable[[Path], object]
    reason: str


def _edit_manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(path: Path) -> None:
        content = json.loads((path / MANIFEST).read_text())
        change(content)
        (path / MANIFEST).write_text(json.dumps(content))

    return edit


def _replace(
    name: str, content: Callable[[bytes], bytes], *, sign: bool = False
) -> Callable[[Path], object]:
    """Change a file, and where `sign` is set the manifest too: only its content is wrong then."""

    def apply(path: Path) -> None:
        changed = content((path / name).read_bytes())
        (path / name).write_bytes(changed)
        entry = {"sha256": hashlib.sha256(changed).hexdigest(), "size": len(changed)}
        if sign:
            _edit_manifest(lambda m: m["files"].__setitem__(name, entry))(path)

    return apply


def _nan_weights(_: bytes) -> bytes:
    tensors = pair()
    for _, values in tensors.values():
        values[0, 0] = np.nan
    return safetensors(tensors)


def _config(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), **changes}).encode()


def _link_outside(path: Path) -> None:
    outside = path.parent / "outside"
    (path / WEIGHTS).rename(outside)
    (path / WEIGHTS).symlink_to(outside)


def _fifo(path: Path) -> None:
    (path / WEIGHTS).unlink()
    os.mkfifo(path / WEIGHTS)


def _directory(path: Path) -> None:
    (path / WEIGHTS).unlink()
    (path / WEIGHTS).mkdir()


POISONS = {
    "missing weights": Poison(lambda p: (p / WEIGHTS).unlink(), f"{WEIGHTS}: missing"),
    "missing config": Poison(lambda p: (p / CONFIG).unlink(), f"{CONFIG}: missing"),
    "missing manifest": Poison(lambda p: (p / MANIFEST).unlink(), f"{MANIFEST}: missing"),
    "extra file": Poison(lambda p: (p / "x.bin").write_bytes(b"x"), "'x.bin': unexpected"),
    "extra directory": Poison(lambda p: (p / "sub").mkdir(), "'sub': unexpected"),
    "link outside": Poison(_link_outside, f"{WEIGHTS}: a symbolic link"),
    "fifo": Poison(_fifo, f"{WEIGHTS}: not a regular file"),
    "directory": Poison(_directory, f"{WEIGHTS}: not a regular file"),
    "wrong hash": Poison(_replace(WEIGHTS, lambda c: c[:-1] + b"\x01"), "SHA-256 differs"),
    "wrong size": Poison(_replace(WEIGHTS, lambda c: c[:-1]), "as published"),
    "truncated": Poison(_replace(WEIGHTS, lambda c: c[:-1], sign=True), "bytes of data"),
    "pickle": Poison(_replace(WEIGHTS, lambda _: b"\x80\x04K\x01.", sign=True), "cut off"),
    "nan": Poison(_replace(WEIGHTS, _nan_weights, sign=True), "NaN or infinite"),
    "other rank": Poison(_replace(CONFIG, _config(r=5), sign=True), "r is 5, not 4"),
    "bias": Poison(_replace(CONFIG, _config(bias="all"), sign=True), "bias is 'all'"),
    "peft type": Poison(
        _replace(CONFIG, _config(peft_type="IA3"), sign=True), "peft_type is 'IA3'"
    ),
    "huge config": Poison(_replace(CONFIG, lambda c: c + b" " * 300_000, sign=True), "more than"),
    "huge manifest": Poison(
        _replace(MANIFEST, lambda c: c + b" " * 100_000), f"{MANIFEST}: .* more than"
    ),
    "no manifest": Poison(lambda p: (p / MANIFEST).write_bytes(b"\xff{"), f"{MANIFEST}: "),
    "deep manifest": Poison(lambda p: (p / MANIFEST).write_bytes(b"[" * 60_000), f"{MANIFEST}: "),
    "unknown field": Poison(_edit_manifest(lambda m: m.update(extra=1)), "unknown field `extra`"),
    "schema": Poison(_edit_manifest(lambda m: m.update(schema_version=2)), "schema version 2"),
    "traversal": Poison(
        _edit_manifest(lambda m: m["files"].update({"../../x": m["files"][WEIGHTS]})),
        r"names the file '\.\./\.\./x'",
    ),
    "absolute": Poison(
        _edit_manifest(lambda m: m["files"].update({"/etc/passwd": m["files"][WEIGHTS]})),
        "names the file '/etc/passwd'",
    ),
    "unnamed file": Poison(_edit_manifest(lambda m: m["files"].pop(WEIGHTS)), "does not name"),
    "rank in manifest": Poison(_edit_manifest(lambda m: m.update(rank=8)), "rank is 8, not 4"),
    "alpha in manifest": Poison(_edit_manifest(lambda m: m.update(alpha=9)), "alpha is 9, not 8"),
}


@pytest.mark.parametrize("name", POISONS)
@pytest.mark.timeout(30)
def test_a_poisoned_directory_is_refused_with_the_reason(
    store: AdapterStore, source: Path, name: str
) -> None:
    _publish(store, source)
    path = store.version_dir(7, 3)
    POISONS[name].apply(path)
    with pytest.raises(PoisonedAdapter, match=POISONS[name].reason) as caught:
        store.verify(path, rank=RANK, alpha=ALPHA)
    assert str(store.root) not in str(caught.value)


def test_a_directory_outside_the_root_is_refused(
    store: AdapterStore, source: Path, tmp_path: Path
) -> None:
    _publish(store, source)
    for path in (source, store.root / ".." / "source", tmp_path / "nowhere"):
        with pytest.raises(PoisonedAdapter, match="not below"):
            store.verify(path)
    (store.root / "link").symlink_to(store.root / "t7")
    with pytest.raises(PoisonedAdapter, match="link: a symbolic link"):
        store.verify(store.root / "link" / "v3")
    with pytest.raises(PoisonedAdapter, match="no such directory"):
        store.verify(store.root / "t7" / "v4")


def _step(store: AdapterStore, tenant_id: int, cycle_id: int) -> Path:
    dirs = store.step_dirs(tenant_id, cycle_id, 1)
    write_adapter(dirs.adapter)
    dirs.state.mkdir()
    return dirs.adapter


def test_removing_a_cycle_removes_its_steps_only(store: AdapterStore, source: Path) -> None:
    gone, kept = _step(store, 7, 11), _step(store, 7, 12)
    _publish(store, source)
    store.remove_cycle(7, 11)
    store.remove_cycle(7, 11)
    assert not gone.exists()
    assert not (store.root / "t7" / "c11").exists()
    assert kept.exists()
    assert store.verify(store.version_dir(7, 3)).cycle_id == 11


def test_pruning_removes_the_steps_of_finished_cycles_only(
    store: AdapterStore, source: Path
) -> None:
    finished = [_step(store, 7, 11), _step(store, 8, 13)]
    running = _step(store, 7, 12)
    identity = write_adapter(store.root / "base" / "digest-r4")
    strange = [store.root / "t7" / "c11x", store.root / "c13", store.root / "t7" / "c"]
    for path in strange:
        path.mkdir()
    _publish(store, source)
    assert store.prune({11, 13, 99}) == [11, 13]
    assert not any(path.exists() for path in finished)
    assert all(path.exists() for path in (running, identity, *strange, store.version_dir(7, 3)))


def test_pruning_nothing_is_nothing(store: AdapterStore) -> None:
    assert store.prune({1}) == []


def test_no_link_is_followed_when_deleting(store: AdapterStore, tmp_path: Path) -> None:
    outside = write_adapter(tmp_path / "outside")
    (store.root / "t7").mkdir(parents=True)
    (store.root / "t7" / "c11").symlink_to(outside)
    (store.root / "t8").symlink_to(tmp_path)
    inside = _step(store, 7, 12)
    (inside / "link").symlink_to(outside)
    assert store.prune({11, 12}) == [12]
    with pytest.raises(PoisonedAdapter, match="symbolic link"):
        store.remove_cycle(7, 11)
    assert sorted(os.listdir(outside)) == [CONFIG, WEIGHTS]


def test_removing_states_keeps_adapters_and_what_is_newer(store: AdapterStore) -> None:
    root = store.step_dirs(7, 11, 1).adapter.parent.parent
    for name in ("s1", "s2-f3", "s3", "s10", "s1x"):
        write_adapter(root / name / "adapter")
        (root / name / "state").mkdir()
    other = _step(store, 7, 12).with_name("state")
    store.remove_states(7, 11, before=3)
    store.remove_states(7, 11, before=3)
    assert sorted(p.parent.name for p in root.glob("*/state")) == ["s10", "s1x", "s3"]
    assert len(list(root.glob("*/adapter"))) == 5
    assert other.exists()


def test_removing_states_follows_no_link(store: AdapterStore, tmp_path: Path) -> None:
    outside = write_adapter(tmp_path / "outside")
    step = store.step_dirs(7, 11, 1).adapter.parent
    step.mkdir(parents=True)
    (step / "state").symlink_to(outside)
    (step.parent / "s2").symlink_to(tmp_path)
    store.remove_states(7, 11, before=9)
    assert sorted(os.listdir(outside)) == [CONFIG, WEIGHTS]
    (store.root / "t8").symlink_to(store.root / "t7")
    with pytest.raises(PoisonedAdapter, match="symbolic link"):
        store.remove_states(8, 11, before=9)


def test_what_another_process_deleted_first_is_no_trouble(
    store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = _step(store, 7, 11)
    unlink = os.unlink

    def quicker(path: Any, *, dir_fd: int | None = None) -> None:
        unlink(path, dir_fd=dir_fd)
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "unlink", quicker)
    store.remove_cycle(7, 11)
    assert not step.exists()


def test_what_cannot_be_deleted_is_said_also_beside_another_process(
    store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _step(store, 7, 11)
    tried: list[str] = []

    def failing(path: str, *, dir_fd: int | None = None) -> None:
        tried.append(path)
        raise (FileNotFoundError if len(tried) == 1 else PermissionError)(path)

    monkeypatch.setattr(os, "unlink", failing)
    with pytest.raises(PermissionError):
        store.prune({11})
