"""Many files made durable at once: told right of each, whatever the kernel and the disk do."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from dicomrx.spool import aio, durable
from tests.conftest import needs_tool

MANY = 300  # more than are asked for at once


@pytest.fixture(params=["at once", "one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """As it is, and where the kernel takes nothing on."""
    if request.param == "one by one":
        monkeypatch.setattr(aio, "_queue", lambda: None)
    return str(request.param)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    fds = [os.open(tmp_path / f"{number}", os.O_WRONLY | os.O_CREAT) for number in range(MANY)]
    for fd in fds:
        os.write(fd, b"x" * 10_000)
    yield fds
    for fd in fds:
        os.close(fd)


def codes(outcomes: list[OSError | None]) -> list[int | None]:
    return [error.errno if error else None for error in outcomes]


def test_each_is_told_its_own_outcome(files: list[int], way: str) -> None:
    read, write = os.pipe()
    closed = os.dup(read)
    os.close(closed)
    fds = [*files[:100], read, *files[100:200], closed, *files[200:]]
    expected = [*[None] * 100, errno.EINVAL, *[None] * 100, errno.EBADF, *[None] * 100]
    assert codes(durable.sync_all(fds)) == expected
    os.close(read)
    os.close(write)
    assert durable.sync_all([]) == []


def test_signals_change_nothing(files: list[int], way: str) -> None:
    met: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: met.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while len(met) < 20:
            assert codes(durable.sync_all(files)) == [None] * MANY
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_who_is_stopped_while_he_waits_leaves_nothing_to_the_next(files: list[int], way: str) -> None:
    waits = "_call" if way == "at once" else "sync_all"
    stopped = 0

    def stop(_: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_name == waits:  # not in what the collector of garbage calls, nor too late
            raise KeyboardInterrupt

    read, write = os.pipe()
    before = signal.signal(signal.SIGALRM, stop)
    try:
        for number in range(1, 60):
            for fd in files:
                os.pwrite(fd, b"y" * number, 0)  # else there is nothing to wait for
            queue = aio._queue()
            try:
                signal.setitimer(signal.ITIMER_REAL, number / 20_000)
                durable.sync_all(files)
            except KeyboardInterrupt:
                stopped += 1
                assert queue is None or aio._queue() is not queue, "what is still to come would be taken for another's"
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert codes(durable.sync_all([read, *files[:64]])) == [errno.EINVAL, *[None] * 64]
        assert stopped
    finally:
        signal.signal(signal.SIGALRM, before)
        os.close(read)
        os.close(write)


PROGRAM = """
import os, sys
from dicomrx.spool import durable
fds = [os.open(f"{sys.argv[1]}/{number}", os.O_WRONLY | os.O_CREAT) for number in range(8)]
print(durable.sync_all(fds))
"""


@pytest.mark.parametrize(
    "refusal",
    ["io_setup:error=EPERM", "io_setup:error=EAGAIN", "io_submit:error=ENOSYS", "io_submit:retval=0", "io_getevents:error=ENOSYS"],
)
def test_where_the_kernel_refuses_they_are_synced_one_by_one(tmp_path: Path, refusal: str) -> None:
    needs_tool("strace")
    assert traced(tmp_path, "-e", f"inject={refusal}") == 8


def test_otherwise_none_is(tmp_path: Path) -> None:
    needs_tool("strace")
    assert traced(tmp_path) == 0


def traced(folder: Path, *inject: str) -> int:
    """How many are fsynced one by one."""
    log = folder / "trace"
    strace = ["strace", "-f", "-e", "trace=fsync,io_setup,io_submit,io_getevents", "-o", str(log), *inject]
    done = subprocess.run([*strace, sys.executable, "-c", PROGRAM, str(folder)], check=True, capture_output=True, text=True)
    assert done.stdout.split() == str([None] * 8).split()
    calls = log.read_text()
    assert "io_setup(" in calls
    return calls.count("fsync(")


def test_what_the_disk_did_not_take_is_told_and_the_rest_is_there(tmp_path: Path) -> None:
    """A disk of 64 MiB with room for 24."""
    needs_tool("mkfs.ext4", "mount", "umount")
    if os.geteuid():
        pytest.skip("only root may mount")
    backing, disk = tmp_path / "backing", tmp_path / "disk"
    backing.mkdir()
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", backing)
    try:
        (backing / "image").touch()
        os.truncate(backing / "image", 64 << 20)
        run("mkfs.ext4", "-q", "-O", "^has_journal", backing / "image")
        run("mount", "-o", "loop", backing / "image", disk)
        try:
            fds = [os.open(disk / f"{number}", os.O_RDWR | os.O_CREAT) for number in range(40)]
            for number, fd in enumerate(fds):
                os.write(fd, bytes([number + 1]) * (1 << 20))
            outcomes = codes(durable.sync_all(fds))
            for fd in fds:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            whole = [os.pread(fd, 1 << 20, 0) == bytes([number + 1]) * (1 << 20) for number, fd in enumerate(fds)]
            for fd in fds:
                os.close(fd)
        finally:
            run("umount", disk)
    finally:
        run("umount", backing)
    assert {None, errno.EIO, errno.ENOSPC} >= set(outcomes)
    assert 8 < outcomes.count(None) < 24
    assert [whole[number] for number, code in enumerate(outcomes) if code is None] == [True] * outcomes.count(None)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
