import errno
import os
from collections.abc import Iterator, Sequence
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


@pytest.mark.parametrize("sick", [0, 1])
def test_what_kept_one_of_several_from_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sick: int) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        (folder / "file").write_bytes(b"")

    def sync_all(fds: Sequence[int]) -> list[OSError | None]:
        return [OSError(errno.EIO, "sick") if at == sick else None for at in range(len(fds))]

    monkeypatch.setattr(durable, "sync_all", sync_all)
    with pytest.raises(OSError, match="sick"):
        durable.sync_names(*folders)
    with pytest.raises(OSError, match="sick"):
        durable.set_times({folder / "file": 1 for folder in folders})


def test_few_of_many_folders_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has 192 descriptors already, and some machines allow 256."""
    folders = [tmp_path / str(number) for number in range(100)]
    for folder in folders:
        folder.mkdir()
    rounds: list[list[str]] = []

    def sync_all(fds: Sequence[int]) -> list[OSError | None]:
        rounds.append([os.readlink(f"/proc/self/fd/{fd}") for fd in fds])
        return [None for _ in fds]

    monkeypatch.setattr(durable, "sync_all", sync_all)
    durable.sync_names(*folders)
    assert [path for some in rounds for path in some] == list(map(str, folders))
    for folder in folders:
        (folder / "file").write_bytes(b"")
    durable.set_times({folder / "file": 1 for folder in folders})
    assert [path for some in rounds[4:] for path in some] == [f"{folder}/file" for folder in folders]
    assert len(rounds) == 8
    assert max(map(len, rounds)) <= 40


def test_without_durability_nothing_is_synced(tmp_path: Path, synced: list[str]) -> None:
    durable.set_durable(enabled=False)
    try:
        durable.make_directory(tmp_path / "a")
    finally:
        durable.set_durable(enabled=True)
    assert synced == []
