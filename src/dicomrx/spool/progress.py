"""For `status`: how far each zip is sent, and why none is. Small files beside the locks, best effort and never synced."""

import contextlib
import io
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from dicomrx.spool import locks
from dicomrx.spool.layout import Spool

_EVERY_S: Final = 0.2


class Progress(NamedTuple):
    """Bytes handed to the network, and all of them."""

    sent: int
    total: int


class FollowedFile(io.FileIO):
    """A file open for reading whose position others can follow, as `progress` of `name`."""

    _lock: int | None = None

    def __init__(self, spool: Spool, path: Path, name: str) -> None:
        super().__init__(path, "rb")
        self._total = os.fstat(self.fileno()).st_size
        self._shown = _path(spool, name)
        self._next = 0.0
        with contextlib.suppress(OSError):
            self._lock = locks.try_lock(self._shown)

    def read(self, size: int | None = -1) -> bytes:
        """As a file's; the position it leaves is shown now and then."""
        data: bytes = super().read(-1 if size is None else size)
        if self._lock is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_S
            with contextlib.suppress(OSError):
                os.pwrite(self._lock, f"{self.tell():020d} {self._total:020d}".encode(), 0)
        return data

    def close(self) -> None:
        """Close it, and show nothing more."""
        super().close()
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._shown.unlink()
            os.close(self._lock)
            self._lock = None


def progress(spool: Spool, name: str) -> Progress | None:
    """How far a living process is with the frozen study `name`; None where none sends it."""
    path = _path(spool, name)
    if not locks.is_locked(path):
        return None
    with contextlib.suppress(OSError, ValueError):
        sent, total = path.read_text().split()
        return Progress(int(sent), int(total))
    return None


def stopped(spool: Spool) -> str | None:
    """Why the destination takes no study at all, None where it does or nobody has tried."""
    with contextlib.suppress(OSError):
        return _stopped_path(spool).read_text() or None
    return None


def note_stopped(spool: Spool, why: str | None) -> None:
    """Tell why the destination takes no study at all; None where it has answered for one."""
    path = _stopped_path(spool)
    with contextlib.suppress(OSError):
        if why is not None:
            path.write_text(why)
        else:
            path.unlink(missing_ok=True)


def _stopped_path(spool: Spool) -> Path:
    return spool.run_dir / "sending" / ".stopped"


def _path(spool: Spool, name: str) -> Path:
    return spool.run_dir / "sending" / name
