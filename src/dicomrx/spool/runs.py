"""Run directories: where a process keeps what it has not finished, held by flock while it lives.

One whose flock can be taken belongs to a dead process.
"""

import itertools
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from dicomrx.spool import durable, locks

_ours: Final[set[Path]] = set()  # the run directories of this process, which are never dead


class RunDirectory:
    """Where one process keeps what it has not finished; held by flock while it lives.

    `path.name` is what others see: the run id, eight hex digits, with a prefix where the caller gives one.
    """

    def __init__(self, parent: Path, prefix: str = "", run: str | None = None) -> None:
        self.run = run or secrets.token_hex(4)
        self.path = parent / f"{prefix}{self.run}"
        self._numbers = itertools.count(1)
        durable.make_directory(parent)
        self._fd = self._start()

    def _start(self) -> int:
        # Made under a dot name and locked before anyone can see it: a starter that sweeps must never find it unlocked.
        hidden = self.path.with_name(f".{self.path.name}")
        while True:
            durable.make_directory(hidden)
            fd = -1
            try:
                fd = locks.hold(hidden)
                durable.move(hidden, self.path)
            except FileNotFoundError:  # a sweeper was faster than our lock
                if fd >= 0:
                    os.close(fd)
                continue
            _ours.add(self.path)
            return fd

    def new_path(self, suffix: str = ".part") -> Path:
        """A name that nothing in this directory has had yet."""
        return self.path / f"{next(self._numbers)}{suffix}"

    def close(self, *, keep: bool = False) -> None:
        """Give the directory up: removed, unless it is to be found as a dead one (`keep`)."""
        if not keep:
            durable.remove_tree(self.path)
        _ours.discard(self.path)
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def dead(parent: Path, patience_s: float = 0.0) -> Iterator[Path]:
    """The run directories under `parent` whose process is gone, dot names among them, each held while it is yielded.

    `patience_s` is how long a lock is tried where readers may hold it for an instant. A hidden directory is looked at only
    after a moment: its starter may be between making and locking it.
    """
    for path in sorted(parent.iterdir()) if parent.is_dir() else []:
        if path in _ours or path.is_symlink() or not path.is_dir():  # is_dir: it may be gone by now
            continue
        if path.name.startswith("."):
            time.sleep(0.05)
        fd = locks.try_hold(path, patience_s)
        if fd is None:
            continue
        try:
            yield path
        finally:
            os.close(fd)


def sweep(parent: Path) -> None:
    """Remove what dead processes left unfinished under `parent`."""
    for path in dead(parent):
        durable.remove_tree(path)
