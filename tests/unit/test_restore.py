"""Restoring as such: what a signal leaves, and what can be read and written at all."""

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from dicomrx.errors import CannotCreateError, NoInputError
from dicomrx.restore import Kind, restore

ENDING = """
import os, signal, sys
from pathlib import Path
from dicomrx.cli.running import ended_by_signals
from dicomrx.restore import restore

def write(out):
    out.write(b"Quixano")
    out.flush()
    os.kill(os.getpid(), int(sys.argv[1]))

with ended_by_signals():
    restore(Path(sys.argv[2]), Path(sys.argv[3]), lambda file: [write])
"""


def copied(file: BinaryIO) -> list[Callable[[BinaryIO], None]]:
    def write(out: BinaryIO) -> None:
        out.write(file.read())

    return [write]


def ended(number: int, source: Path, out: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ENDING, str(number), str(source), str(out)], stderr=subprocess.PIPE, check=False)
    assert done.returncode == (-signal.SIGKILL if number == signal.SIGKILL else -signal.SIGINT), done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "anon" / "a").mkdir(parents=True)
    (tmp_path / "anon" / "a" / "1").write_bytes(b"one")
    return tmp_path / "anon"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_restore_that_is_ended_leaves_no_original_half_written(folder: Path, tmp_path: Path, number: int) -> None:
    ended(number, folder, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["a"]


def test_a_restore_under_nohup_outlives_its_terminal(folder: Path, tmp_path: Path) -> None:
    command = ["nohup", sys.executable, "-c", ENDING, str(int(signal.SIGHUP)), str(folder), str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "out" / "a" / "1").read_bytes() == b"Quixano"


def test_what_a_killed_restore_left_is_removed_by_the_next_and_told(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    ended(signal.SIGKILL, folder, out)
    ended(signal.SIGKILL, folder / "a" / "1", tmp_path / "one")
    left = [*(out / "a").iterdir(), *tmp_path.glob(".*")]
    assert [path.read_bytes() for path in left] == [b"Quixano"] * 2
    restore(folder, out, copied)
    restore(folder / "a" / "1", tmp_path / "one", copied)
    assert [path.name for path in [*(out / "a").iterdir(), *tmp_path.glob(".*")]] == ["1"]
    assert [record.message.count("had left") for record in caplog.records] == [1, 1]


def test_what_another_restore_is_writing_stays(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def meanwhile(file: BinaryIO) -> list[Callable[[BinaryIO], None]]:
        def write(part: BinaryIO) -> None:
            with pytest.raises(CannotCreateError, match="empty or new"):
                restore(folder, out, lambda _: [lambda _: (out / "a" / "1").touch()])
            (out / "a" / "1").unlink()
            part.write(file.read())

        return [write]

    restore(folder, out, meanwhile)
    assert [path.read_bytes() for path in (out / "a").iterdir()] == [b"one"]


@pytest.mark.parametrize("long", ["x" * 256, "x" * 256 + "/y", "/".join(["x" * 200] * 25)])
def test_a_name_that_is_too_long_costs_its_own_entry_alone(tmp_path: Path, long: str) -> None:
    with zipfile.ZipFile(tmp_path / "anon.zip", "w") as bundle:
        for name in ("a", long, "z"):
            bundle.writestr(name, b"one")
    report = restore(tmp_path / "anon.zip", tmp_path / "out", copied)
    assert (report.restored, [(name, str(error)) for name, error in report.failed]) == (
        2,
        [(long, "its name is too long for where the originals go")],
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_file()) == ["a", "z"]


def test_what_is_no_file_no_folder_and_no_zip_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(NoInputError, match="no file, folder or zip"):
            Kind.of(path)
