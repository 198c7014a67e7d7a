"""The spool on a real disk: order, bounds, adoption, and what damage costs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.spool import files
from server.spool.frames import frame
from server.spool.spool import NotNow, Spool, SpoolFull


def spool_at(root: Path, *, max_bytes: int = 2**20, segment_bytes: int = 100) -> Spool:
    spool = Spool(root, max_bytes=max_bytes, segment_bytes=segment_bytes)
    spool.adopt()
    return spool


def drain(spool: Spool, limit: int = 3) -> list[bytes]:
    """Everything that is in the spool, in its order."""
    found: list[bytes] = []
    while (records := spool.head(limit)) is not None:
        found += records.payloads
        spool.done(len(records.payloads))
    return found


def crash(spool: Spool) -> None:
    """Let go of the lock as the system does for a process that was killed."""
    assert spool._own is not None
    os.close(spool._own.descriptor)


def segments(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.seg"))


def numbered(num: int) -> list[bytes]:
    return [b"%04d" % i for i in range(num)]


@given(
    batches=st.lists(st.lists(st.binary(max_size=60), max_size=6), max_size=8),
    limits=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    segment_bytes=st.integers(1, 200),
)
def test_records_come_back_in_order_whatever_happens_between(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[bytes]],
    limits: list[int],
    segment_bytes: int,
):
    root = tmp_path_factory.mktemp("spool")
    spool = spool_at(root, segment_bytes=segment_bytes)
    expected: list[bytes] = []
    found: list[bytes] = []
    for i, batch in enumerate(batches):
        spool.append(batch)
        expected += batch
        records = spool.head(limits[i % len(limits)])
        if records is not None:
            found += records.payloads
            spool.done(len(records.payloads))
        assert spool.num_entries == len(expected) - len(found)
    assert found + drain(spool) == expected
    assert (spool.num_entries, spool.num_bytes, spool.oldest_at) == (0, 0, None)
    spool.close()
    assert list(root.iterdir()) == []


def test_nothing_is_on_disk_before_the_first_record(tmp_path: Path):
    spool = spool_at(tmp_path / "spool")
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_is_last_says_whether_anything_stands_behind(tmp_path: Path):
    spool = spool_at(tmp_path, segment_bytes=1)
    spool.append([b"a", b"b"])
    first = spool.head(10)
    assert first is not None
    assert (first.payloads, first.is_last) == ([b"a"], False)
    spool.done(1)
    last = spool.head(10)
    assert last is not None
    assert (last.payloads, last.is_last) == ([b"b"], True)


def test_a_record_that_is_read_stays_until_it_is_done(tmp_path: Path):
    spool = spool_at(tmp_path)
    spool.append(numbered(2))
    assert spool.head(2) == spool.head(2)
    spool.done(1)
    assert drain(spool) == [b"0001"]


def test_what_is_added_while_the_head_is_read_goes_behind(tmp_path: Path):
    spool = spool_at(tmp_path)
    spool.append([b"a"])
    spool.head(1)
    spool.append([b"b"])
    assert drain(spool) == [b"a", b"b"]


def test_the_bound(tmp_path: Path):
    spool = spool_at(tmp_path, max_bytes=3 * len(frame(b"0000")))
    spool.append(numbered(2))
    with pytest.raises(SpoolFull):
        spool.append(numbered(2))
    spool.append([b"0002"])
    with pytest.raises(SpoolFull):
        spool.append([b""])
    assert drain(spool) == numbered(3)
    spool.append(numbered(3))


def test_a_killed_process_is_inherited_from_with_nothing_lost(tmp_path: Path):
    killed = spool_at(tmp_path)
    killed.append(numbered(20))
    killed.head(3)
    killed.done(3)  # in memory only: it is for the reader to know what it has
    crash(killed)
    heir = spool_at(tmp_path)
    assert heir.num_entries == 20
    heir.append([b"new"])
    assert drain(heir) == [*numbered(20), b"new"]
    heir.close()
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_keeps_its_directory(tmp_path: Path):
    alive = spool_at(tmp_path)
    alive.append([b"mine"])
    other = spool_at(tmp_path)
    assert other.num_entries == 0
    other.append([b"other"])
    assert drain(other) == [b"other"]
    assert drain(alive) == [b"mine"]


def test_one_heir_takes_all_and_the_other_nothing(tmp_path: Path):
    for payload in (b"a", b"b"):
        killed = Spool(tmp_path, max_bytes=2**20)
        killed.append([payload])
        crash(killed)
    heir, late = spool_at(tmp_path), spool_at(tmp_path)
    assert late.num_entries == 0
    assert drain(heir) == [b"a", b"b"]


def test_an_heir_that_ends_too_leaves_the_rest(tmp_path: Path):
    first = spool_at(tmp_path)
    first.append(numbered(20))
    first.close()
    second = spool_at(tmp_path)
    second.head(5)
    second.done(5)
    second.close()
    num_left = 20 - 5  # the first segment has five records, and is gone
    assert drain(spool_at(tmp_path)) == numbered(20)[-num_left:]


def test_a_torn_end_is_cut_off(tmp_path: Path):
    killed = spool_at(tmp_path, segment_bytes=2**20)
    killed.append(numbered(3))
    crash(killed)
    [path] = segments(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    heir = spool_at(tmp_path)
    assert drain(heir) == numbered(2)
    assert heir.num_entries == 0
    assert list(tmp_path.glob("*.damaged")) == []


def test_a_damaged_record_is_set_aside_and_the_rest_replayed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    spool = spool_at(tmp_path, segment_bytes=2**20)
    spool.append(numbered(5))
    [path] = segments(tmp_path)
    content = bytearray(path.read_bytes())
    size = len(frame(b"0000"))
    content[3 * size - 1] ^= 1  # the last byte of the third
    path.write_bytes(content)
    assert drain(spool) == [b"0000", b"0001", b"0003", b"0004"]
    assert spool.num_entries == 0
    [aside] = tmp_path.glob("*.damaged")
    assert aside.read_bytes() == content[2 * size : 3 * size]
    assert "damaged" in caplog.text
    assert str(aside) in caplog.text


def test_a_segment_that_is_gone_or_unreadable_does_not_stop_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    spool = spool_at(tmp_path, segment_bytes=1)
    spool.append(numbered(3))
    segments(tmp_path)[1].unlink()
    assert drain(spool) == [b"0000", b"0002"]
    assert spool.num_entries == 0
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("reason", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_segment_that_cannot_be_opened_in_a_flood_stays_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
):
    spool = spool_at(tmp_path, segment_bytes=1)
    spool.append(numbered(2))

    def fails(_path: Path) -> bytes:
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fails)
        for _ in range(2):
            with pytest.raises(NotNow):
                spool.head(3)
        assert spool.num_entries == 2
    assert drain(spool) == numbered(2)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_refused_record_is_kept(tmp_path: Path):
    spool = spool_at(tmp_path)
    spool.append(numbered(3))
    spool.head(1)
    spool.put_aside("no good")
    assert drain(spool) == [b"0001", b"0002"]
    [aside] = tmp_path.glob("*.refused")
    assert aside.read_bytes() == frame(b"0000")
    assert spool.num_refused == 1


def full_disk(_descriptor: int, *_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_full_disk_leaves_the_spool_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    spool = spool_at(tmp_path, segment_bytes=2**20)
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, call, full_disk)
            with pytest.raises(OSError, match="No space"):
                spool.append([b"lost"])
            assert not spool.probe()
        assert spool.probe()
        spool.append([b"kept"])
    assert drain(spool) == [b"kept", b"kept"]
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_half_a_record_is_cut_off_when_the_disk_fills_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spool = spool_at(tmp_path, segment_bytes=2**20)
    spool.append([b"before"])
    write, num_calls = os.write, 0

    def fills_up(descriptor: int, data: memoryview) -> int:
        nonlocal num_calls
        num_calls += 1
        return write(descriptor, data[:7]) if num_calls == 1 else full_disk(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", fills_up)
        with pytest.raises(OSError, match="No space"):
            spool.append([b"lost"])
    [path] = segments(tmp_path)
    assert path.read_bytes() == frame(b"before")
    spool.append([b"after"])
    assert drain(spool) == [b"before", b"after"]


def test_what_cannot_be_set_aside_stays_with_its_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spool = spool_at(tmp_path, segment_bytes=2**20)
    spool.append(numbered(2))
    spool.head(1)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", full_disk)
        spool.put_aside("no good")
    assert drain(spool) == [b"0001"]
    [kept] = tmp_path.glob("*.kept")
    assert kept.read_bytes() == frame(b"0000") + frame(b"0001")


def test_what_is_kept_counts_towards_the_bound(tmp_path: Path):
    (tmp_path / "old.refused").write_bytes(bytes(1000))
    assert not spool_at(tmp_path, max_bytes=1000).has_room(1)
    assert spool_at(tmp_path, max_bytes=1001).has_room(1)


def test_what_is_kept_counts_until_somebody_removes_it(tmp_path: Path):
    size = len(frame(b"0000"))
    spool = spool_at(tmp_path, max_bytes=size)
    spool.append([b"0000"])
    spool.head(1)
    spool.put_aside("no good")
    assert spool.head(1) is None
    assert not spool.has_room(1)
    with pytest.raises(SpoolFull):
        spool.append([b"0001"])
    [aside] = tmp_path.glob("*.refused")
    aside.unlink()
    assert spool.head(1) is None
    assert spool.has_room(size)
    spool.append([b"0001"])


def test_room_that_was_made_by_hand_is_found_when_it_is_needed(tmp_path: Path):
    (tmp_path / "old.refused").write_bytes(bytes(1000))
    spool = spool_at(tmp_path, max_bytes=1000)
    (tmp_path / "old.refused").unlink()
    spool.append(numbered(3))
    assert drain(spool) == numbered(3)


def test_what_is_kept_since_the_start_counts_too(tmp_path: Path):
    spool = spool_at(tmp_path, max_bytes=1000)
    spool.append([bytes(900)])
    [path] = segments(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert drain(spool) == []
    assert list(tmp_path.glob("*.damaged"))
    assert not spool.has_room(900)


def test_a_directory_that_cannot_be_looked_through_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "old.refused").write_bytes(bytes(1000))
    spool = spool_at(tmp_path, max_bytes=1000)

    def fails(_path: Path, _pattern: str) -> list[Path]:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", fails)
        assert spool.head(1) is None
        with pytest.raises(SpoolFull):
            spool.append([b"x"])
