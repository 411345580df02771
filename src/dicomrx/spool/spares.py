"""Files of inputs that are done with are written again as outputs.

What is not removed need not be made, and has its blocks and its pages already. A CT image of 0.5 MB takes 0.25 ms of the system instead of
0.55 on ext4; without a journal, which gives no inode again for a minute and looks at each that was freed, a small one 0.1 instead of 0.7.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dicomrx.spool import durable
from dicomrx.spool.layout import Spool
from dicomrx.spool.names import Arrival

# Of a larger one its inode is the least that it costs; so many are a batch.
_SIZE: Final = 1 << 20
_MOST: Final = 32


class Spares:
    """Files of a process that reads `incoming/`: to be cleared when there is nothing to do, for what was in them names patients."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._paths: list[Path] = []
        self._made: tuple[int, int, int] | None = None

    def open(self) -> tuple[Path, int]:
        """An unfinished file, and its descriptor, to be written from its begin; `durable.end_here` then cuts off what was behind."""
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        if self._paths:
            path = self._paths.pop()
            return path, os.open(path, flags)
        path = self._spool.new_path()
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o660)
        self._made = _looks(os.fstat(fd))
        return path, fd

    def take(self, arrivals: Iterable[Arrival]) -> None:
        """Remove inputs from `incoming/`, durably, and keep some of their files: nothing must need what was in them any more."""
        room = _MOST - len(self._paths)
        fit = [arrival.name for arrival in arrivals if self._may_keep(arrival)]
        kept = {name: self._spool.new_path() for name in fit[:room]}
        durable.remove_all(self._spool.incoming, [arrival.name for arrival in arrivals], kept)
        self._paths += filter(os.path.exists, kept.values())

    def _may_keep(self, arrival: Arrival) -> bool:
        """Only what a receiver wrote: nobody writes it still, or has it under another name. It must look like what this process makes."""
        if not arrival.association:
            return False
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(f"{self._spool.incoming}/{arrival.name}")
            return status.st_nlink == 1 and status.st_size <= _SIZE and _looks(status) == self._made
        return False

    def clear(self) -> None:
        """Remove them."""
        while self._paths:
            self._paths.pop().unlink(missing_ok=True)


def _looks(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid
