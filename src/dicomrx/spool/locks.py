"""flock: the only module that calls it. A lock ends with the process that holds it, however that ends."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LOCK_PATIENCE_S: Final = 1.0
_FILE_MODE: Final = 0o660  # the umask narrows it: 0077 alone, 0007 for one group


def take(fd: int) -> None:
    """Lock an open file or folder for this process alone, waiting for it."""
    fcntl.flock(fd, fcntl.LOCK_EX)


def leads_to(path: Path | str, fd: int) -> bool:
    """True while `path` is still a name of the open file `fd`."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def claim(path: Path | str) -> int | None:
    """Take `path` (a regular file or a folder) for this process alone, or None where another has it or it is gone.

    The claim is a flock on the thing itself: closing the descriptor, or dying, gives it back. Raises OSError ELOOP for a symlink.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    if leads_to(path, fd):
        return fd
    os.close(fd)
    return None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive flock on the lock file `path`, waiting for it."""
    fd = _open_lock(path)
    try:
        take(fd)
        yield
    finally:
        os.close(fd)


def hold(folder: Path) -> int:
    """Hold an exclusive flock on `folder` until the descriptor returned is closed, waiting for it; raises FileNotFoundError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    take(fd)
    return fd


def try_hold(folder: Path, patience_s: float) -> int | None:
    """The same, trying it for so long where readers probe it; None where another holds it or it is gone."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if not _flock_now(fd, fcntl.LOCK_SH):  # held, not probed: that may last
        os.close(fd)
        return None
    return _patiently(fd, patience_s)


def try_lock(path: Path) -> int | None:
    """Take the lock file `path` until the descriptor returned is closed; None where another process holds it.

    Readers probe with a shared lock for an instant, so this tries for a second before it gives up.
    """
    return _patiently(_open_lock(path), LOCK_PATIENCE_S)


def is_locked(path: Path) -> bool:
    """True while a living process holds `path`, a lock file or a run directory; False where it is missing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _flock_now(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)


def _flock_now(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _patiently(fd: int, patience_s: float) -> int | None:
    """Try an exclusive flock for so long; the descriptor is closed where it is not to be had."""
    deadline = time.monotonic() + patience_s
    while not _flock_now(fd, fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            os.close(fd)
            return None
        time.sleep(0.02)
    return fd
