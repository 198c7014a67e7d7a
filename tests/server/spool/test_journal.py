"""The journal: on disk when it says so, and gone when it is not needed any more."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from server.spool import files
from server.spool.frames import Intact, scan
from server.spool.journal import Journal
from server.spool.spool import Spool, SpoolFull


def opened(root: Path, *, max_bytes: int = 2**20, segment_bytes: int = 2**16) -> Journal:
    journal = Journal(root, max_bytes=max_bytes, segment_bytes=segment_bytes)
    journal.open()
    return journal


def on_disk(root: Path) -> list[bytes]:
    """All records, in the order of the files."""
    found: list[bytes] = []
    for path in sorted(root.glob("*/*.seg")):
        for part in scan(path.read_bytes()):
            assert isinstance(part, Intact)
            found.append(part.payload)
    return found


def adopted(root: Path) -> list[bytes]:
    """What the process that starts next finds."""
    spool = Spool(root, max_bytes=2**20)
    spool.adopt()
    found: list[bytes] = []
    while (records := spool.head(10)) is not None:
        found += records.payloads
        spool.done(len(records.payloads))
    spool.close()
    return found


def test_records_are_on_disk_and_synced_when_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal, synced = opened(tmp_path), list[int]()
    sync = os.fdatasync

    def noting(descriptor: int) -> None:
        sync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(files.os, "fdatasync", noting)
    journal.append([b"a", b"b"])
    assert on_disk(tmp_path) == [b"a", b"b"]
    assert synced == [journal.num_bytes]


def test_nothing_is_left_of_a_journal_whose_records_are_forgotten(tmp_path: Path):
    journal = opened(tmp_path)
    for kept in journal.append([b"a", b"b"]):
        kept.forget()
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_segment_is_removed_with_its_last_record(tmp_path: Path):
    journal = opened(tmp_path, segment_bytes=40)
    first = journal.append([b"a" * 20, b"b" * 20])  # fills it
    second = journal.append([b"c"])
    first[1].forget()
    assert len(on_disk(tmp_path)) == 3
    first[0].forget()
    assert on_disk(tmp_path) == [b"c"]
    second[0].forget()
    assert on_disk(tmp_path) == [b"c"]  # its file is still added to
    journal.append([b"d"])
    assert on_disk(tmp_path) == [b"c", b"d"]


def test_what_is_not_forgotten_is_adopted_by_the_next_process(tmp_path: Path):
    journal = opened(tmp_path)
    journal.append([b"a"])
    journal.append([b"b", b"c"])[0].forget()
    assert adopted(tmp_path) == []  # it is held by a living process
    journal.close()
    assert adopted(tmp_path) == [b"a", b"b", b"c"]
    assert list(tmp_path.iterdir()) == []


def test_a_journal_has_an_end(tmp_path: Path):
    journal = opened(tmp_path, max_bytes=100, segment_bytes=50)
    kept = journal.append([b"a" * 40])
    with pytest.raises(SpoolFull):
        journal.append([b"b" * 40])
    kept[0].forget()
    journal.append([b"b" * 40])
    assert on_disk(tmp_path) == [b"b" * 40]


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_full_disk_leaves_the_journal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    def full_disk(_descriptor: int, *_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = opened(tmp_path)
    journal.append([b"before"])
    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, full_disk)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                journal.append([b"lost"])
    journal.append([b"after"])
    assert on_disk(tmp_path) == [b"before", b"after"]
