import os
from pathlib import Path

import pytest

from dicomrx.spool import locks


def test_a_claim_excludes_every_other_and_ends_with_its_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"")
    fd = locks.claim(path)
    assert fd is not None
    assert locks.claim(path) is None
    os.close(fd)
    again = locks.claim(path)
    assert again is not None
    os.close(again)


def test_a_claim_on_a_name_that_leads_elsewhere_by_now_is_none(tmp_path: Path) -> None:
    """The race: opened here, then moved away by another and the name given to something new, and only then locked."""
    path = tmp_path / "input"
    path.write_bytes(b"")
    fd = os.open(path, os.O_RDONLY)
    path.rename(tmp_path / "moved")
    assert not locks.leads_to(path, fd)
    path.write_bytes(b"new")
    assert not locks.leads_to(path, fd)
    assert locks.leads_to(tmp_path / "moved", fd)
    os.close(fd)


def test_a_claim_is_given_back_where_the_name_has_changed_while_it_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"")
    real_open = os.open

    def open_then_lose_the_name(name: Path, flags: int) -> int:
        fd = real_open(name, flags)
        path.rename(tmp_path / "moved")
        return fd

    monkeypatch.setattr(os, "open", open_then_lose_the_name)
    assert locks.claim(path) is None
    monkeypatch.undo()
    fd = locks.claim(tmp_path / "moved")
    assert fd is not None
    os.close(fd)


def test_a_claim_on_what_is_gone_is_none_and_on_a_link_an_error(tmp_path: Path) -> None:
    assert locks.claim(tmp_path / "gone") is None
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="symbolic"):
        locks.claim(tmp_path / "link")


def test_a_fifo_is_claimed_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fd = locks.claim(tmp_path / "fifo")
    assert fd is not None
    os.close(fd)


def test_a_lock_file_that_a_reader_probes_is_still_taken(tmp_path: Path) -> None:
    fd = locks.try_lock(tmp_path / "lock")
    assert fd is not None
    assert locks.is_locked(tmp_path / "lock")
    os.close(fd)
    assert not locks.is_locked(tmp_path / "lock")
    assert not locks.is_locked(tmp_path / "missing")


def test_a_lock_that_another_holds_is_not_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LOCK_PATIENCE_S", 0.1)
    with locks.locked(tmp_path / "lock"):
        assert locks.try_lock(tmp_path / "lock") is None
