"""Link, rename and fsync: the only module that calls them (many fsyncs by `aio`), so that durability is decided in one place.

New files are written in a run directory (`runs`), fsynced and then **linked** to their final name: nothing is ever overwritten,
and a reader never sees half a file.
"""

import contextlib
import ctypes
import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicomrx.spool import aio, locks

if TYPE_CHECKING:
    from dicomrx.spool.runs import RunDirectory

_DIR_MODE: Final = 0o770  # the umask narrows it: 0077 alone, 0007 for one group
_FILE_MODE: Final = 0o660
_MAX_PIECES: Final = 1024  # IOV_MAX
_AT_ONCE: Final = 32  # descriptors, of which a process may have 256 on some machines, and a batch of 64 has 192 already
_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_SYNC_FILE_RANGE_WRITE: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


class _Policy:
    """Whether fsync is called at all: one switch for a process, set once from the DURABLE setting."""

    enabled = True


def set_durable(*, enabled: bool) -> None:
    """Turn every fsync of this process on (the default) or off."""
    _Policy.enabled = enabled


def is_durable() -> bool:
    """Whether it is on."""
    return _Policy.enabled


def sync(fd: int) -> None:
    """Make a file, or the names in a directory, survive a power cut."""
    if _Policy.enabled:
        os.fsync(fd)


def sync_all(fds: Sequence[int]) -> list[OSError | None]:
    """The same for many files, whose waits for the disk fall together: what kept each from it, or None.

    An error is told once: the same call again would succeed, with nothing on the disk.
    """
    if not _Policy.enabled:
        return [None] * len(fds)
    outcomes: list[OSError | None] = []
    while len(outcomes) < len(fds) and (some := aio.fsync(fds[len(outcomes) :])):
        outcomes += some
    for fd in fds[len(outcomes) :]:
        try:
            os.fsync(fd)
        except OSError as error:
            outcomes.append(error)
        else:
            outcomes.append(None)
    return outcomes


def begin_sync(fd: int) -> None:
    """Send a file on its way to the disk, so that `sync` waits less: a hint that promises nothing."""
    if _Policy.enabled:
        _libc.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_FILE_RANGE_WRITE)


def sync_directory(path: Path | str) -> None:
    """Make the names in `path` survive a power cut."""
    if not _Policy.enabled:
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(fd)
    finally:
        os.close(fd)


def sync_names(*paths: Path | str) -> None:
    """The same for several directories, whose waits for the disk fall together."""
    if not _Policy.enabled:
        return
    for first in range(0, len(paths), _AT_ONCE):
        with _opened(paths[first : first + _AT_ONCE], os.O_RDONLY | os.O_DIRECTORY) as fds:
            _raise_first(sync_all(fds))


@contextlib.contextmanager
def _opened(paths: Iterable[Path | str], flags: int) -> Iterator[list[int]]:
    with contextlib.ExitStack() as held:
        fds = []
        for path in paths:
            fds.append(os.open(path, flags | os.O_CLOEXEC))
            held.callback(os.close, fds[-1])
        yield fds


def _raise_first(outcomes: Iterable[OSError | None]) -> None:
    for error in outcomes:
        if error is not None:
            raise error


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`, however the kernel cuts it."""
    while (written := os.write(fd, data)) < len(data):
        data = memoryview(data)[written:]


def write_pieces(fd: int, pieces: Sequence[bytes | memoryview]) -> None:
    """Write all the pieces one behind the other, in as few calls as the kernel allows."""
    for first in range(0, len(pieces), _MAX_PIECES):
        some = pieces[first : first + _MAX_PIECES]
        written = os.writev(fd, some)
        if written == sum(map(len, some)):
            continue
        for piece in some:
            if written < len(piece):
                write_all(fd, memoryview(piece)[max(written, 0) :])
            written -= len(piece)


def end_here(fd: int) -> None:
    """Cut off what is left of a file behind what was written last."""
    end = os.lseek(fd, 0, os.SEEK_CUR)
    if os.fstat(fd).st_size > end:
        os.ftruncate(fd, end)


def make_directory(path: Path) -> None:
    """Make `path` and its missing parents, each durable in the one above.

    Another process may make or take away any of them meanwhile; both errors of that race are met.
    """
    for _ in range(100):
        try:
            path.mkdir(mode=_DIR_MODE)
        except FileExistsError:
            if path.is_dir():
                return
            raise
        except FileNotFoundError:
            make_directory(path.parent)
        else:
            sync_directory(path.parent)
            return
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def link(source: Path | str, target: Path | str) -> None:
    """Give a finished, fsynced file its final name, durably; raises FileExistsError rather than overwrite."""
    os.link(source, target, follow_symlinks=False)
    if _Policy.enabled:
        sync_directory(os.path.dirname(target))


def link_all(pairs: Iterable[tuple[Path, Path | str]], *above: Path) -> None:
    """The same for many pairs of source and target; their directories, and those `above` them, are synced once, when all are linked."""
    parents = []
    for source, target in pairs:
        os.link(source, target, follow_symlinks=False)
        parents.append(os.path.dirname(target))
    sync_names(*dict.fromkeys(parents), *above)


def publish(data: bytes, target: Path, scratch: "RunDirectory") -> None:
    """Write `data` durably under `target`; raises FileExistsError rather than overwrite."""
    part = scratch.new_path()
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    try:
        try:
            write_all(fd, data)
            sync(fd)
        finally:
            os.close(fd)
        link(part, target)
    finally:
        part.unlink(missing_ok=True)


def append_line(path: Path, line: bytes) -> None:
    """Add a line to the file `path`, durably and wholly or not at all, made for its folder's owner alone; for many processes at once.

    Raises OSError, ELOOP for a symlink among them.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        locks.take(fd)
        size = os.fstat(fd).st_size
        torn = size and os.pread(fd, 1, size - 1) != b"\n"  # by a crash
        if not size and os.geteuid() == 0:
            os.fchown(fd, path.parent.stat().st_uid, path.parent.stat().st_gid)
        try:
            write_all(fd, b"\n" * torn + line + b"\n")
            sync(fd)
        except BaseException:
            os.ftruncate(fd, size)
            raise
        sync_directory(path.parent)
    finally:
        os.close(fd)


def move(source: Path, target: Path) -> None:
    """Rename durably in both parents; raises FileExistsError rather than replace what bears the name.

    Not atomic against a power cut between the two directories only on file systems that do not journal a rename.
    """
    if _libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(source), None, str(target))
    sync_directory(target.parent)
    if source.parent != target.parent:
        sync_directory(source.parent)


def sync_file(path: Path) -> None:
    """Make a file and its name survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)
    sync_directory(path.parent)


def set_times(times: Mapping[Path, int]) -> None:
    """Set the modification times of files (ns), durably."""
    paths = list(times)
    for first in range(0, len(paths), _AT_ONCE):
        some = paths[first : first + _AT_ONCE]
        with _opened(some, os.O_WRONLY | os.O_NOFOLLOW) as fds:
            for path, fd in zip(some, fds, strict=True):
                os.utime(fd, ns=(times[path], times[path]))
            _raise_first(sync_all(fds))


def create_locked(path: Path, scratch: "RunDirectory") -> int:
    """Make a file that this process holds by flock until the descriptor is closed, durably; raises FileExistsError.

    It is locked before it has its name: nobody ever finds it unlocked while its writer lives.
    """
    part = scratch.new_path()
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    locks.take(fd)
    link(part, path)
    part.unlink()
    return fd


def remove(path: Path) -> None:
    """Unlink a file, durably; nothing happens where it is gone already."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_directory(path.parent)


def remove_all(folder: Path, names: Iterable[str], kept: Mapping[str, Path]) -> None:
    """The same for many files of a folder, which is synced once, when all are gone; those of some names are `kept`, at another path.

    Linked there, as a rename would tell all who watch the folder.
    """
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            if name in kept:
                os.link(f"{folder}/{name}", kept[name])
            os.unlink(f"{folder}/{name}")
    sync_directory(folder)


def remove_tree(path: Path) -> None:
    """Remove a directory that nobody else uses, with all in it."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
        sync_directory(path.parent)
