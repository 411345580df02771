"""Files of inputs that are done with are written again as outputs.

What is not removed need not be made, and has its blocks and its pages already. A CT image of 0.5 MB takes 0.25 ms of the system instead of
0.55 on ext4; without a journal, which gives no inode again for a minute and looks at each that was freed, a small one 0.1 instead of 0.7.
"""

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dicomrx.spool import durable
from dicomrx.spool.layout import Spool
from dicomrx.spool.names import Arrival

# Of a larger one its inode is the least that it costs.
_SIZE: Final = 1 << 20
_REST_S: Final = 1.0


class Spares:
    """Files of a process that reads `incoming/`: not to be kept for long, for what was in them names patients; `most` are of use."""

    def __init__(self, spool: Spool, most: int) -> None:
        self._spool = spool
        self._most = most
        self._paths: deque[Path] = deque()
        self._latest = 0.0
        self._made: tuple[int, int, int] | None = None

    def open(self) -> tuple[Path, int]:
        """An unfinished file, and its descriptor, to be written from its begin; `durable.end_here` then cuts off what was behind."""
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        while self._paths:
            path = self._paths.popleft()  # the oldest: none waits while others come and go
            with contextlib.suppress(OSError):
                fd = os.open(path, flags)
                if os.fstat(fd).st_nlink == 1:  # a backup may have linked it at the last moment
                    return path, fd
                os.close(fd)
            path.unlink(missing_ok=True)
        path = self._spool.new_path()
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o660)
        self._made = _looks(os.fstat(fd))
        return path, fd

    def take(self, arrivals: Iterable[Arrival]) -> None:
        """Remove inputs from `incoming/`, durably, and keep some of their files: nothing must need what was in them any more."""
        room = self._most - len(self._paths)
        fit = [arrival.name for arrival in arrivals if self._may_keep(arrival)]
        kept = {name: self._spool.new_path() for name in fit[:room]}
        self._paths += kept.values()
        self._latest = time.monotonic()
        try:
            durable.remove_all(self._spool.incoming, [arrival.name for arrival in arrivals], kept)
        except BaseException:
            self._made = None  # a full disk may have room for no other name: next time they are removed
            self._clear()
            raise

    def _may_keep(self, arrival: Arrival) -> bool:
        """Only what a receiver wrote: nobody writes it still, or has it under another name. It must look like what this process makes.

        Nothing where nothing is synced: after a power cut an output's name could lead to what its file held before, an identity.
        """
        if not arrival.association or not durable.is_durable():
            return False
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(f"{self._spool.incoming}/{arrival.name}")
            return status.st_nlink == 1 and status.st_size <= _SIZE and _looks(status) == self._made
        return False

    def tend(self) -> None:
        """To be called now and then: remove them, unless one has come just now."""
        if time.monotonic() - self._latest > _REST_S:
            self._clear()

    def _clear(self) -> None:
        while self._paths:
            self._paths.pop().unlink(missing_ok=True)


def _looks(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid
