import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomrx.spool import durable
from dicomrx.spool.runs import RunDirectory


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory(tmp_path / "tmp") as run:
        yield run


def test_what_is_published_is_whole_and_leaves_no_part(tmp_path: Path, scratch: RunDirectory) -> None:
    durable.publish(b"whole", tmp_path / "name", scratch)
    assert (tmp_path / "name").read_bytes() == b"whole"
    assert list(scratch.path.iterdir()) == []


def test_publishing_never_overwrites(tmp_path: Path, scratch: RunDirectory) -> None:
    (tmp_path / "name").write_bytes(b"first")
    with pytest.raises(FileExistsError):
        durable.publish(b"second", tmp_path / "name", scratch)
    assert (tmp_path / "name").read_bytes() == b"first"
    assert list(scratch.path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_moving_never_replaces_what_bears_the_name(tmp_path: Path, kind: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    if kind == "file":
        source.write_bytes(b"new")
        target.write_bytes(b"old")
    else:
        source.mkdir()
        target.mkdir()  # an empty folder is what rename(2) would replace
    with pytest.raises(FileExistsError):
        durable.move(source, target)
    assert source.exists()


def test_moving_what_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        durable.move(tmp_path / "gone", tmp_path / "target")


def test_directories_are_made_with_their_parents_and_once(tmp_path: Path) -> None:
    for _ in range(2):
        durable.make_directory(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_file_in_the_way_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FileExistsError):
        durable.make_directory(tmp_path / "a")


def test_a_claim_excludes_every_other_and_ends_with_its_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"")
    fd = durable.claim(path)
    assert fd is not None
    assert durable.claim(path) is None
    os.close(fd)
    again = durable.claim(path)
    assert again is not None
    os.close(again)


def test_a_claim_on_a_name_that_leads_elsewhere_by_now_is_none(tmp_path: Path) -> None:
    """The race: opened here, then moved away by another and the name given to something new, and only then locked."""
    path = tmp_path / "input"
    path.write_bytes(b"")
    fd = os.open(path, os.O_RDONLY)
    path.rename(tmp_path / "moved")
    assert not durable.leads_to(path, fd)
    path.write_bytes(b"new")
    assert not durable.leads_to(path, fd)
    assert durable.leads_to(tmp_path / "moved", fd)
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
    assert durable.claim(path) is None
    monkeypatch.undo()
    fd = durable.claim(tmp_path / "moved")
    assert fd is not None
    os.close(fd)


def test_a_claim_on_what_is_gone_is_none_and_on_a_link_an_error(tmp_path: Path) -> None:
    assert durable.claim(tmp_path / "gone") is None
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="symbolic"):
        durable.claim(tmp_path / "link")


def test_a_fifo_is_claimed_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fd = durable.claim(tmp_path / "fifo")
    assert fd is not None
    os.close(fd)


def test_a_lock_file_that_a_reader_probes_is_still_taken(tmp_path: Path) -> None:
    fd = durable.try_lock(tmp_path / "lock")
    assert fd is not None
    assert durable.is_locked(tmp_path / "lock")
    os.close(fd)
    assert not durable.is_locked(tmp_path / "lock")
    assert not durable.is_locked(tmp_path / "missing")


def test_a_lock_that_another_holds_is_not_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "LOCK_PATIENCE_S", 0.1)
    with durable.locked(tmp_path / "lock"):
        assert durable.try_lock(tmp_path / "lock") is None


def test_removing_twice_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "tree" / "below").mkdir(parents=True)
    for _ in range(2):
        durable.remove(tmp_path / "file")
        durable.remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is fsynced, in order, by the paths of their descriptors."""
    paths: list[str] = []
    real = os.fsync

    def note(fd: int) -> None:
        paths.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        real(fd)

    monkeypatch.setattr(os, "fsync", note)
    return paths


def test_bytes_are_durable_before_their_name_and_the_name_before_publish_returns(
    tmp_path: Path, scratch: RunDirectory, synced: list[str]
) -> None:
    (tmp_path / "folder").mkdir()
    durable.publish(b"whole", tmp_path / "folder" / "name", scratch)
    assert synced == ["1.part", "folder"]


def test_a_move_is_durable_in_both_parents_the_new_one_first(tmp_path: Path, synced: list[str]) -> None:
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
    (tmp_path / "from" / "file").write_bytes(b"")
    durable.move(tmp_path / "from" / "file", tmp_path / "to" / "file")
    assert synced == ["to", "from"]


def test_a_new_directory_is_durable_in_the_one_above(tmp_path: Path, synced: list[str]) -> None:
    durable.make_directory(tmp_path / "a" / "b")
    assert synced == [tmp_path.name, "a"]


def test_without_durability_nothing_is_synced(tmp_path: Path, synced: list[str]) -> None:
    durable.set_durable(enabled=False)
    try:
        durable.make_directory(tmp_path / "a")
    finally:
        durable.set_durable(enabled=True)
    assert synced == []
